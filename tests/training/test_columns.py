"""The table of figures: aligned, in order, and open for metrics that it does not know."""

from __future__ import annotations

import re

import pytest

from distnet.training.columns import COLUMNS, header, row

FIGURES = {
    "epoch": 1.0,
    "step": 600,
    "train_loss": 0.1234,
    "train_accuracy": 0.97,
    "test_loss": 0.0567,
    "test_accuracy": 0.9821,
    "images_per_second": 12345.4,
    "wait_share": 0.032,
    "bytes_per_step": 1.1e6,
    "slowest_rank": 3,
    "compute_seconds": [1.0, 2.0],
    "elapsed_seconds": 3723.0,
}


def test_the_table_is_aligned():
    heads, cells = header(FIGURES), row(FIGURES)
    shown = [COLUMNS[name] for name in FIGURES if COLUMNS[name] is not None]
    ends = [heads.index(column.head) + len(column.head) for column in shown]
    assert [match.end() for match in re.finditer(r"\S+", cells)] == ends
    words = "1 600 0.1234 0.0567 98.21% 12345 3.2% 1.10 3 1:02:03"
    assert cells.split() == words.split()


def test_a_metric_that_is_not_known_has_a_column():
    figures = FIGURES | {"test_rmse": 0.25}
    assert "test rmse  images/s" in header(figures)
    assert "0.2500" in row(figures).split()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (36_061, "10:01:01")]
)
def test_elapsed_time(seconds, text):
    assert row({"elapsed_seconds": seconds}).strip() == text


@pytest.mark.parametrize(("epoch", "text"), [(3.0, "3"), (2.5, "2.50")])
def test_epochs(epoch, text):
    assert row({"epoch": epoch}).strip() == text
