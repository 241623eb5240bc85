"""Optimizers and learning-rate schedules on flat vectors; they never see a network."""

from distnet.optim.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
    make_optimizer,
)
from distnet.optim.schedules import SCHEDULES, Schedule, depends_on_length, make_schedule

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "depends_on_length",
    "make_optimizer",
    "make_schedule",
]
