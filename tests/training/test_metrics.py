"""Metrics tell every step once."""

import json
from pathlib import Path

import numpy as np
import pytest

from distnet.training.files.metrics import Metrics, write_summary


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def strict(text: str) -> dict[str, object]:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def lines_of(path: Path) -> list[dict[str, object]]:
    return [strict(line) for line in path.read_text().splitlines()]


def run(path: Path, first: int, last: int) -> None:
    """A run that logs steps first + 1 to last and leaves without closing its file."""
    metrics = Metrics(path, first)
    for step in range(first + 1, last + 1):
        metrics.write("train", step, loss=1 / step)
        if step % 3 == 0:
            metrics.write("epoch", step, test_accuracy=0.5)
    metrics.close()


def test_a_line_is_a_json_object_and_can_be_read_at_once(path):
    metrics = Metrics(path, 0)
    metrics.write("train", 3, loss=0.5, name="ü\n", counts=[1, 2])
    assert lines_of(path) == [
        {"event": "train", "step": 3, "loss": 0.5, "name": "ü\n", "counts": [1, 2]}
    ]
    metrics.close()


def test_numbers_of_numpy_and_numbers_that_json_lacks(path):
    metrics = Metrics(path, 0)
    metrics.write("train", np.int64(3), a=np.float32(0.5), b=np.float64("nan"), c=[-np.inf])
    metrics.close()
    assert lines_of(path) == [{"event": "train", "step": 3, "a": 0.5, "b": None, "c": [None]}]


@pytest.mark.parametrize("killed_at", [6, 7, 8, 9])
def test_a_resumed_run_tells_every_step_once(path, tmp_path, killed_at):
    run(tmp_path / "whole.jsonl", 0, 10)
    run(path, 0, killed_at)
    run(path, 6, 10)
    assert path.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert len(list(tmp_path.iterdir())) == 2, "no temporary file is left"


def test_a_half_written_line_is_dropped_wherever_it_breaks(path):
    run(path, 0, 6)
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole) - 1):
        path.write_bytes(whole[:cut])
        Metrics(path, 6).close()
        assert path.read_bytes() == whole[:last]


def test_lines_that_are_none_of_ours_are_dropped(path):
    run(path, 0, 2)
    whole = path.read_bytes()
    foreign = [b"\xff\n", b"[]\n", b"7\n", b'{"event": "x"}\n', b'{"step": "2"}\n', b"\n"]
    path.write_bytes(b"".join(foreign) + b"[" * 10_000 + b"\n" + whole)
    Metrics(path, 2).close()
    assert path.read_bytes() == whole


def test_a_run_from_scratch_starts_a_new_file(path):
    run(path, 0, 4)
    run(path, 0, 2)
    assert [line["step"] for line in lines_of(path)] == [1, 2]


def test_a_resumed_run_may_have_no_file(path):
    run(path, 6, 8)
    assert [line["step"] for line in lines_of(path)] == [7, 8]


def test_the_summary_is_strict_json(tmp_path):
    path = tmp_path / "summary.json"
    write_summary(path, {"loss": float("inf"), "steps": np.int64(3), "fingerprint": {"a": "b"}})
    assert strict(path.read_text()) == {"loss": None, "steps": 3, "fingerprint": {"a": "b"}}
