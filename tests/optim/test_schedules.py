"""Schedules against closed forms: where the learning rate starts, peaks, falls and ends."""

import math

import numpy as np
import pytest

from distnet.base.options import own_options
from distnet.optim import SCHEDULES, depends_on_length, make_schedule
from distnet.optim.schedules import step_decay


def rates(name, total_steps, **options):
    schedule = make_schedule(name, 0.4, total_steps, **options)
    return [schedule(step) for step in range(total_steps)]


def test_constant_stays():
    assert rates("constant", 5) == [0.4] * 5


def test_step_is_multiplied_by_gamma_at_each_milestone():
    expected = [0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1]
    schedule = step_decay(0.4, [2, 5], gamma=0.5)
    assert [schedule(step) for step in range(7)] == pytest.approx(expected)
    assert rates("step", 7, milestones=[2 / 7, 5 / 7], gamma=0.5) == pytest.approx(expected)


def test_step_falls_after_half_and_three_quarters_unless_told_otherwise():
    assert rates("step", 8) == pytest.approx([0.4] * 4 + [0.04] * 2 + [0.004] * 2)


def test_linear_rises_to_the_peak_and_falls_to_zero():
    expected = 0.4 * np.array([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert rates("linear", 10, warmup=0.2) == pytest.approx(expected)


def test_linear_without_warm_up_falls_from_the_first_step():
    assert rates("linear", 4, warmup=0) == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_cosine_rises_to_the_peak_and_falls_as_half_a_cosine():
    root = math.sqrt(0.5)
    falling = [1, (1 + root) / 2, 1 / 2, (1 - root) / 2]
    expected = 0.4 * np.array([1 / 2, *falling])
    assert rates("cosine", 5, warmup=0.2) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_nothing_is_learned_after_the_end(name):
    schedule = make_schedule(name, 0.4, 10, warmup=0.1)
    assert [schedule(step) for step in (10, 11, 1000)] == [0, 0, 0]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("total_steps", [1, 2, 3, 17])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.99])
def test_rates_are_positive_and_the_peak_is_reached(name, total_steps, warmup):
    takes_it = "warmup" in own_options(SCHEDULES[name])
    run = rates(name, total_steps, **({"warmup": warmup} if takes_it else {}))
    assert min(run) > 0
    assert max(run) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "cosin"}, "unknown schedule 'cosin', expected one of constant, .*mean cosine"),
        ({"lr": -0.1}, "lr: found -0.1, expected a number >= 0"),
        ({"lr": math.nan}, "lr: found nan"),
        ({"total_steps": 0}, "total_steps: found 0, expected at least 1"),
        ({"warmup": 1.0}, "warmup: found 1.0, expected a number >= 0 and < 1"),
        ({"warmup": -0.1}, "warmup: found -0.1"),
        ({"gamma": 0.5}, "unknown option of schedule linear 'gamma', expected one of warmup"),
        ({"name": "constant", "warmup": 0.1}, "unknown option of schedule constant 'warmup'"),
        ({"name": "step", "gamma": 0.0}, "gamma: found 0.0, expected a number > 0 and <= 1"),
        (
            {"name": "step", "milestones": [0.5, 0.5]},
            r"milestones: found \(0.5, 0.5\), expected rising fractions of the run",
        ),
        ({"name": "step", "milestones": [0]}, "milestones: found 0.0, expected a number > 0"),
        ({"name": "step", "milestones": []}, r"milestones: found \[\], expected a list"),
    ],
)
def test_what_makes_no_sense_is_rejected_in_one_line(change, message):
    with pytest.raises(ValueError, match=f"^(?!.*\n).*{message}"):
        make_schedule(**{"name": "linear", "lr": 0.1, "total_steps": 10, **change})


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_does_not_depend_on_the_length_goes_on_after_it(name):
    rates = [make_schedule(name, 0.4, total_steps)(9) for total_steps in (10, 20)]
    assert (rates[0] != rates[1]) == depends_on_length(name)
