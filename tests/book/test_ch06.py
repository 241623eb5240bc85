"""The experiments of chapter 6 in their quick form, and what lives with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load, perform
from distnet.nn import MicroBatch
from distnet.parallel import SerialCommunicator

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch06"
EXPERIMENTS = [
    "optimizer_paths",
    "compare_optimizers",
    "zero_weights",
    "activation_histograms",
    "compare_initializations",
    "batch_norm_scales",
    "weight_decay",
    "dropout",
    "random_search",
]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_requirements_hold(name, tmp_path):
    module = load(CHAPTER / f"{name}.py")
    lab = Lab(SerialCommunicator(), tmp_path, quick=True)
    numbers = perform(lab, name, module.run)
    assert [str(v) for v in (lab.judge(r, numbers) for r in module.REQUIRED) if not v.holds] == []


def sgd(p, g, s, t):
    return p - 0.95 * g


def momentum(p, g, s, t):
    s["v"] = 0.9 * s.get("v", 0) - 0.1 * g
    return p + s["v"]


def nesterov(p, g, s, t):
    """As in the book: p is the point looked ahead to, v the velocity before this step."""
    v = s.get("v", 0)
    s["v"] = 0.9 * v - 0.1 * g
    return p + 0.9 * 0.9 * v - 1.9 * 0.1 * g


def adagrad(p, g, s, t):
    s["h"] = s.get("h", 0) + g * g
    return p - 1.5 * g / (math.sqrt(s["h"]) + 1e-7)


def rmsprop(p, g, s, t):
    s["h"] = 0.99 * s.get("h", 0) + 0.01 * g * g
    return p - 0.1 * g / (math.sqrt(s["h"]) + 1e-7)


def adam(p, g, s, t):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    lr = 0.3 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return p - lr * s["m"] / (math.sqrt(s["v"]) + 1e-7)


@pytest.mark.parametrize("rule", [sgd, momentum, nesterov, adagrad, rmsprop, adam])
def test_paths_follow_the_rules_written_out(rule):
    paths = load(CHAPTER / "optimizer_paths.py")
    path = paths.descend(rule.__name__, **paths.SETTINGS[rule.__name__])
    for axis, slope in enumerate((1 / 10, 2)):
        p, state = paths.START[axis], {}
        for t in range(1, paths.NUM_STEPS + 1):
            p = rule(p, slope * p, state, t)
            assert path[t, axis] == pytest.approx(p, rel=0, abs=1e-9)


def test_the_dropout_of_the_book_scales_in_evaluation_alone():
    layer = load(CHAPTER / "dropout.py").DropoutOfTheBook(0.25)
    layer.build((1000,))
    x = np.full((4, 1000), 8, np.float32)
    y = layer.forward(x, at=MicroBatch())
    assert set(np.unique(y)) == {0, 8}
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(layer.backward(x), y)
    np.testing.assert_array_equal(layer.forward(x), np.float32(6))


def test_trials_are_spread_over_the_orders_of_magnitude():
    draw_trials = load(CHAPTER / "random_search.py").draw_trials
    trials = draw_trials(1000, seed=3)
    assert trials[:10] == draw_trials(10, seed=3) != draw_trials(10, seed=4)
    for values, lowest in (
        ([trial.lr for trial in trials], -6),
        ([trial.weight_decay for trial in trials], -8),
    ):
        counts, _ = np.histogram(np.log10(values), bins=4, range=(lowest, lowest + 4))
        assert counts.sum() == 1000
        assert counts.min() > 200


@pytest.mark.mpi(min_size=2)
def test_a_search_on_ranks_gives_the_same_numbers(comm, tmp_path, monkeypatch):
    search = load(CHAPTER / "random_search.py")
    four = search.draw_trials(4, seed=0)
    monkeypatch.setattr(search, "draw_trials", lambda count, seed: four)
    labs = [
        Lab(each, tmp_path / str(comm.rank), quick=True) for each in (SerialCommunicator(), comm)
    ]
    alone, together = (search.run(lab) for lab in labs)
    assert together == alone
    assert len(set(together["params_sha256"])) == 4
