"""The configuration of a training run: read from flags and TOML, and what of it decides results.

`registries` knows what has a name, `options` is the table of what can be said, `conflicts` tells
what does not go together. `distnet/train.py` calls `parse`; the trainer writes `to_toml` beside its
results and puts `identity` into every checkpoint.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from distnet.base.arrays import ceil_divide
from distnet.base.options import ConfigError, details, parse_values, settle, to_toml
from distnet.optim import depends_on_length
from distnet.training.conflicts import check_together
from distnet.training.options import TrainOptions
from distnet.training.registries import check_early

__all__ = ["ConfigError", "TrainConfig", "config_of", "identity", "parse", "to_toml", "whole_run"]

MAX_DEFAULT_MICRO_BATCH = 32


@dataclass(frozen=True)
class TrainConfig(TrainOptions):
    """Trains a network on a data set; the number of ranks does not change the result.

    Its fields are those of `TrainOptions`. Raises ConfigError for a value that is not allowed.
    """

    def __post_init__(self) -> None:
        settle(self)
        check_together(self)


def parse(argv: Sequence[str], prog: str = "python -m distnet.train") -> TrainConfig:
    """The configuration that a command line (without the program's name) asks for.

    The default micro-batch follows --batch-size. Raises ConfigError, whose
    message is one line, and SystemExit(0) after printing the help for `--help`.
    """
    check_early()
    return config_of(parse_values(TrainConfig, argv, prog))


def config_of(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration with those values, and defaults: that of micro-batches follows the batch.

    Raises ConfigError.
    """
    values = dict(values)
    if "batch_size" in values:
        values.setdefault("micro_batch_size", default_micro_batch_size(values["batch_size"]))
    return TrainConfig(**values)


def default_micro_batch_size(batch_size: int) -> int:
    """The batch in 1, 2, 4 ... equal parts, as few as leave at most MAX_DEFAULT_MICRO_BATCH each.

    So 2, 4 or 8 ranks share them out evenly, and a part is small enough for the cache.
    """
    num_parts = 1
    while num_parts * MAX_DEFAULT_MICRO_BATCH < batch_size:
        num_parts *= 2
    return ceil_divide(batch_size, num_parts)


def identity(config: TrainConfig) -> dict[str, Any]:
    """The options that decide the results: equal on all ranks, and equal when a run is resumed.

    As JSON has them. Of `epochs` and `steps` the one in force, and none if the result up to a step
    does not depend on the length: a run with a constant learning rate may be resumed to train for
    longer, unless islands synchronise at its end.
    """
    idle = {"epochs" if config.steps else "steps"}
    if not depends_on_length(config.schedule) and config.sync == "step":
        idle = {"epochs", "steps"}
    if not config.numbers.rounds:
        idle |= {"arithmetic_bits"}
    values = {
        item.name: getattr(config, item.name)
        for item in fields(config)
        if details(item).decides and item.name not in idle
    }
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


def defaults_of(config: TrainConfig) -> dict[str, Any]:
    """What decides the results of a run of that model, data, optimizer and schedule by default.

    A checkpoint of an earlier version, which does not know an option, was computed so.
    """
    chosen = {name: getattr(config, name) for name in ("model", "data", "optimizer", "schedule")}
    return identity(TrainConfig(**chosen))


def whole_run(config: TrainConfig) -> TrainConfig:
    """Without what concerns one part of the run alone, so that it can be run again.

    From any directory: files and directories are named by their whole paths.
    """
    paths = [item.name for item in fields(config) if details(item).path]
    whole = {name: os.path.abspath(path) for name in paths if (path := getattr(config, name))}
    return replace(config, **whole | {"resume": "", "stop_at": 0, "overwrite": False})
