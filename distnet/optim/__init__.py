"""Optimizers, learning-rate schedules and averages on flat vectors; they never see a network.

OPTIMIZERS and SCHEDULES are all of them by name. An optimizer is added by its file and a line here.
"""

from __future__ import annotations

from typing import Any

from distnet.base.options import pick
from distnet.optim.averaging import Averaged, ExponentialMovingAverage
from distnet.optim.bounds import Bounded
from distnet.optim.layerwise import LAMB, LARS
from distnet.optim.mixed import MasterWeights
from distnet.optim.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
)
from distnet.optim.schedules import SCHEDULES, Schedule, depends_on_length, make_schedule

__all__ = [
    "LAMB",
    "LARS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Averaged",
    "Bounded",
    "ExponentialMovingAverage",
    "MasterWeights",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "depends_on_length",
    "make_optimizer",
    "make_schedule",
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
    "adamw": AdamW,
    "lars": LARS,
    "lamb": LAMB,
}


def make_optimizer(name: str, size: int, **settings: Any) -> Optimizer:
    """The optimizer that OPTIMIZERS calls `name`, for vectors of `size` elements.

    settings: keyword arguments of `Optimizer` and hyper-parameters of the rule. Raises ValueError
    for a name that is unknown, and as `Optimizer` does.
    """
    return pick(OPTIMIZERS, "optimizer", name)(size, **settings)
