"""What can be chosen by name in a run, and the options that each entry takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distnet.base.options import ConfigError, Option, own_options, shown
from distnet.data.registry import DATASETS
from distnet.models import MODELS
from distnet.optim import OPTIMIZERS, SCHEDULES
from distnet.training.step.islands import LocalSteps
from distnet.training.step.synchronization import EveryStep

# Ways to come to one state on all ranks, by what they are configured by.
SYNCHRONIZATIONS = {"step": EveryStep, "local": LocalSteps}
REGISTRIES: dict[str, Mapping[str, Any]] = {
    "model": MODELS,
    "data": DATASETS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "sync": SYNCHRONIZATIONS,
}
# What there was when this file was read, of which the flags are made.
KNOWN = {owner: frozenset(registry) for owner, registry in REGISTRIES.items()}

# The options that the entries of the registries take, by entry.
ENTRIES: dict[str, dict[str, Mapping[str, Option]]] = {
    "model": {name: own_options(maker) for name, maker in MODELS.items()},
    "optimizer": {name: optimizer.options for name, optimizer in OPTIMIZERS.items()},
    "schedule": {name: own_options(factory) for name, factory in SCHEDULES.items()},
    "sync": {name: own_options(maker) for name, maker in SYNCHRONIZATIONS.items()},
}


def check_early() -> None:
    """Raises ConfigError for an entry of a registry that has come too late to have flags."""
    for owner, registry in REGISTRIES.items():
        if late := [name for name in registry if name not in KNOWN[owner]]:
            raise ConfigError(
                f"{owner} {shown(late[0])}: found it added after the options were read, expected "
                "all before; add it before the first run, and before distnet.training.config is "
                "imported"
            )
