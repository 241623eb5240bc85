"""Learning-rate schedules: the learning rate of a step as a function of its number alone.

Steps count from 0 to total_steps - 1. In a warm-up of W steps (Goyal et al. 2017,
arXiv:1706.02677, section 2.2) step s has (s + 1) / (W + 1) of the peak; step W is the first with
all of it. `training/trainer.py` asks before each update.
"""

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

from distnet.base.arithmetic import FLOAT, Arithmetic, portable
from distnet.base.options import Option, check, own_options, pick

Schedule = Callable[[int], float]

Warmup = Annotated[
    float,
    Option(
        "fraction of the run during which the rate rises to --lr",
        metavar="X",
        limits={">=": 0, "<": 1},
    ),
]
Milestones = Annotated[
    tuple[float, ...],
    Option("fractions of the run at which the rate falls", metavar="X", limits={">": 0, "<": 1}),
]
Gamma = Annotated[float, Option("factor of each fall", metavar="X", limits={">": 0, "<=": 1})]


@portable
def constant(lr: float) -> Schedule:
    """The same `lr` at every step."""
    return portable(lambda step: lr)


def step_decay(
    lr: float, milestones: Sequence[int], gamma: float, arithmetic: Arithmetic = FLOAT
) -> Schedule:
    """`lr` times `gamma` for each of the rising `milestones`, in steps, that was reached."""
    return lambda step: lr * arithmetic.power(gamma, bisect_right(milestones, step))


@portable
def stepwise(
    lr: float,
    total_steps: int,
    *,
    milestones: Milestones = (0.5, 0.75),
    gamma: Gamma = 0.1,
    arithmetic: Arithmetic = FLOAT,
) -> Schedule:
    """`step_decay` at fractions of the run; He et al. 2016, section 4.2, have these defaults.

    Raises ValueError unless the milestones rise.
    """
    rises = all(a < b for a, b in pairwise(milestones))
    _check(rises, "milestones", milestones, "rising fractions of the run")
    steps = [max(1, round(part * total_steps)) for part in milestones]
    return step_decay(lr, steps, gamma, arithmetic)


@portable
def linear(lr: float, total_steps: int, *, warmup: Warmup = 0.1) -> Schedule:
    """A straight line up to `lr` during the warm-up, another down to 0 at the end of the run."""
    return _warmed_up(lr, total_steps, warmup, lambda passed: 1 - passed)


@portable
def cosine(
    lr: float, total_steps: int, *, warmup: Warmup = 0.1, arithmetic: Arithmetic = FLOAT
) -> Schedule:
    """After the warm-up half a cosine down to 0 (Loshchilov and Hutter 2017, equation 5)."""
    return _warmed_up(
        lr, total_steps, warmup, lambda passed: (1 + arithmetic.cos(math.pi * passed)) / 2
    )


# Called with the peak, the length of the run if it is a parameter, and options of their own.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": stepwise,
    "linear": linear,
    "cosine": cosine,
}


def make_schedule(
    name: str, lr: float, total_steps: int, *, arithmetic: Arithmetic = FLOAT, **options: Any
) -> Schedule:
    """The schedule that SCHEDULES calls `name`, with peak `lr`, for a run of `total_steps`.

    arithmetic: that of the network. Raises ValueError for an unknown name or option, for numbers
    that make no sense, and for a schedule that may not take part in the arithmetic.
    """
    factory = pick(SCHEDULES, "schedule", name)
    arithmetic.check(factory, f"schedule {name}")
    _check(0 <= lr < math.inf, "lr", lr, "a number >= 0")
    _check(total_steps >= 1, "total_steps", total_steps, "at least 1")
    known = own_options(factory)
    given = {
        option: check(pick(known, f"option of schedule {name}", option), value, option)
        for option, value in options.items()
    }
    if "arithmetic" in inspect.signature(factory).parameters:
        given["arithmetic"] = arithmetic
    schedule = (
        factory(lr, total_steps, **given) if depends_on_length(name) else factory(lr, **given)
    )
    return portable(schedule) if arithmetic.rounds else schedule


def depends_on_length(name: str) -> bool:
    """Whether the rates of the schedule follow from the length of the run."""
    return "total_steps" in inspect.signature(SCHEDULES[name]).parameters


def _warmed_up(
    lr: float, total_steps: int, warmup: float, shape: Callable[[float], float]
) -> Schedule:
    """A warm-up to `lr`, then `lr` times `shape` of how much of the rest has passed, 0 to 1."""
    num_warmup_steps = min(round(warmup * total_steps), total_steps - 1)

    def schedule(step: int) -> float:
        if step < num_warmup_steps:
            return lr * (step + 1) / (num_warmup_steps + 1)
        passed = (step - num_warmup_steps) / (total_steps - num_warmup_steps)
        return lr * shape(min(passed, 1.0))

    return schedule


def _check(valid: bool, name: str, value: object, expected: str) -> None:
    if not valid:
        raise ValueError(f"schedule: {name}: found {value}, expected {expected}")
