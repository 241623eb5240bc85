"""Learning-rate schedules: the learning rate of a step as a function of its number alone.

Steps count from 0 to total_steps - 1. In a warm-up of W steps (Goyal et al. 2017,
arXiv:1706.02677, section 2.2) step s has (s + 1) / (W + 1) of the peak; step W is the first with
all of it. `training/trainer.py` asks before each update.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

Schedule = Callable[[int], float]
SCHEDULES = ("constant", "step", "linear", "cosine")


def make_schedule(
    name: str,
    lr: float,
    total_steps: int,
    *,
    warmup_fraction: float = 0.0,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
) -> Schedule:
    """The schedule called `name` with peak `lr` for a run of `total_steps`.

    "linear" and "cosine" warm up during `warmup_fraction` of the run and end at 0; "step" goes by
    `milestones` (steps) and `gamma`; "constant" by `lr` alone. Raises ValueError for an unknown
    name and for numbers that make no sense, whether or not the schedule uses them.
    """
    _check(0 <= lr < math.inf, "lr", lr, "0 <= lr < inf")
    _check(total_steps >= 1, "total_steps", total_steps, "at least 1")
    _check(0 <= warmup_fraction < 1, "warmup_fraction", warmup_fraction, "0 <= fraction < 1")
    _check(0 < gamma <= 1, "gamma", gamma, "0 < gamma <= 1")
    ordered = all(a < b for a, b in pairwise((0, *milestones)))
    _check(ordered, "milestones", milestones, "rising step numbers from 1")
    num_warmup_steps = min(round(warmup_fraction * total_steps), total_steps - 1)
    match name:
        case "constant":
            return constant(lr)
        case "step":
            return step_decay(lr, milestones, gamma)
        case "linear":
            return linear(lr, total_steps, num_warmup_steps)
        case "cosine":
            return cosine(lr, total_steps, num_warmup_steps)
    raise ValueError(f"unknown schedule {name!r}, expected one of {', '.join(SCHEDULES)}")


def constant(lr: float) -> Schedule:
    """The same `lr` at every step."""
    return lambda step: lr


def step_decay(lr: float, milestones: Sequence[int], gamma: float) -> Schedule:
    """`lr` times `gamma` for each rising milestone reached (He et al. 2016, section 4.2)."""
    return lambda step: lr * gamma ** bisect_right(milestones, step)


def linear(lr: float, total_steps: int, num_warmup_steps: int) -> Schedule:
    """A straight line up to `lr` during the warm-up, another down to 0 at the end of the run."""
    return _warmed_up(lr, total_steps, num_warmup_steps, lambda passed: 1 - passed)


def cosine(lr: float, total_steps: int, num_warmup_steps: int) -> Schedule:
    """After the warm-up half a cosine down to 0 (Loshchilov and Hutter 2017, equation 5)."""
    return _warmed_up(
        lr, total_steps, num_warmup_steps, lambda passed: (1 + math.cos(math.pi * passed)) / 2
    )


def _warmed_up(
    lr: float, total_steps: int, num_warmup_steps: int, shape: Callable[[float], float]
) -> Schedule:
    """A warm-up to `lr`, then `lr` times `shape` of how much of the rest has passed, 0 to 1."""

    def schedule(step: int) -> float:
        if step < num_warmup_steps:
            return lr * (step + 1) / (num_warmup_steps + 1)
        passed = (step - num_warmup_steps) / (total_steps - num_warmup_steps)
        return lr * shape(min(passed, 1.0))

    return schedule


def _check(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ValueError(f"schedule: {name} is {value}, expected {expected}")
