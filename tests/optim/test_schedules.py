"""Schedules against closed forms: where the learning rate starts, peaks, falls and ends."""

import math

import numpy as np
import pytest

from distnet.optim import SCHEDULES, make_schedule


def rates(name, total_steps, **options):
    schedule = make_schedule(name, 0.4, total_steps, **options)
    return [schedule(step) for step in range(total_steps)]


def test_constant_stays():
    assert rates("constant", 5, warmup_fraction=0.5) == [0.4] * 5


def test_step_is_multiplied_by_gamma_at_each_milestone():
    expected = [0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1]
    assert rates("step", 7, milestones=[2, 5], gamma=0.5) == pytest.approx(expected)


def test_linear_rises_to_the_peak_and_falls_to_zero():
    expected = 0.4 * np.array([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert rates("linear", 10, warmup_fraction=0.2) == pytest.approx(expected)


def test_linear_without_warm_up_falls_from_the_first_step():
    assert rates("linear", 4) == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_cosine_rises_to_the_peak_and_falls_as_half_a_cosine():
    root = math.sqrt(0.5)
    falling = [1, (1 + root) / 2, 1 / 2, (1 - root) / 2]
    expected = 0.4 * np.array([1 / 2, *falling])
    assert rates("cosine", 5, warmup_fraction=0.2) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_nothing_is_learned_after_the_end(name):
    schedule = make_schedule(name, 0.4, 10, warmup_fraction=0.1)
    assert [schedule(step) for step in (10, 11, 1000)] == [0, 0, 0]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 17])
@pytest.mark.parametrize("warmup_fraction", [0.0, 0.1, 0.99])
def test_rates_are_positive_and_the_peak_is_reached(name, total_steps, warmup_fraction):
    run = rates(name, total_steps, warmup_fraction=warmup_fraction)
    assert min(run) > 0
    assert max(run) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin', expected one of constant, step, "),
        ({"lr": -0.1}, "lr is -0.1, expected 0 <= lr < inf"),
        ({"lr": math.nan}, "lr is nan"),
        ({"total_steps": 0}, "total_steps is 0, expected at least 1"),
        ({"warmup_fraction": 1.0}, "warmup_fraction is 1.0, expected 0 <= fraction < 1"),
        ({"warmup_fraction": -0.1}, "warmup_fraction is -0.1"),
        ({"gamma": 0.0}, "gamma is 0.0, expected 0 < gamma <= 1"),
        ({"milestones": [5, 5]}, r"milestones is \[5, 5\], expected rising step numbers from 1"),
        ({"milestones": [0]}, r"milestones is \[0\]"),
    ],
)
def test_what_makes_no_sense_is_rejected_in_one_line(change, message):
    with pytest.raises(ValueError, match=f"^(?!.*\n).*{message}"):
        make_schedule(**{"name": "linear", "lr": 0.1, "total_steps": 10, **change})
