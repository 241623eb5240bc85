"""The file of a sweep: options that all trials share, and those in which they differ.

    base = "recipes/speedrun"       # a file of options, and options, as for training
    steps = 300

    [grid]                          # every combination
    optimizer = ["sgd", "adam"]
    lr = [0.001, 0.01]

or, of `trials` trials, each with options that are drawn:

    [random]
    trials = 20
    lr = { low = 1e-4, high = 1e-1, log = true }
    batch_size = [50, 100]

`[[grid]]` several times are several grids, such as one for each optimizer. What a trial draws
depends on the seed, its number and the place of the option in the file, so more trials, and options
behind the others, change nothing that was drawn.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from distnet.base.keys import Purpose, stream, uniform
from distnet.base.options import (
    ConfigError,
    check_values,
    details,
    overlaid,
    read_toml,
    read_unchecked,
    shown,
)
from distnet.training.config import TrainConfig, config_of

MAX_TRIALS = 10_000
MAX_ATTEMPTS = 1000  # to draw a trial that no other one has drawn
MAX_NAME = 120  # characters of a directory; file systems allow 255 bytes
OF_A_TRIAL = ("out", "resume", "overwrite", "stop_at", "timeline")  # the sweep sets them


@dataclass(frozen=True)
class Trial:
    """A training of its own: `chosen` are the options in which trials differ, `path` its directory.

    name: that of the directory, made of `chosen`, so that a trial of a sweep that has grown since
    is found again.
    """

    name: str
    path: Path
    chosen: Mapping[str, Any]
    config: TrainConfig


def trials_of(spec: Path, out: Path) -> list[Trial]:
    """The trials that the file asks for, in its order; raises ConfigError."""
    content = read_unchecked(spec)
    grids, random = content.pop("grid", None), content.pop("random", None)
    shared = _shared(spec, content)
    if (grids is None) == (random is None):
        found = "neither" if grids is None else "both"
        raise ConfigError(f"{spec}: found {found} of [grid] and [random], expected one of them")
    if random is not None:
        chosen = _draws(_table(random, f"{spec}: random"), f"{spec}: random", shared.get("seed", 0))
    else:
        tables = grids if isinstance(grids, list) and grids else [grids]
        chosen = [
            combination
            for table in tables
            for combination in _combinations(_table(table, f"{spec}: grid"), f"{spec}: grid")
        ]
    varied = _varied(chosen)
    trials = [_trial(spec, out, shared, each, varied) for each in chosen]
    names = Counter(each.name for each in trials)
    for trial, settings in zip(trials, chosen, strict=True):
        if names[trial.name] > 1:
            told = ", ".join(f"{name}={value}" for name, value in settings.items())
            raise ConfigError(f"{spec}: found trial {told} twice, expected trials that differ")
    if len({bool(each.config.validation) for each in trials}) > 1:
        raise ConfigError(
            f"{spec}: validation: found 0 and others, expected it in all trials or in none: they "
            "are compared by the accuracy on the same data"
        )
    return trials


def _shared(spec: Path, content: dict[str, Any]) -> dict[str, Any]:
    """The options of all trials: those of the file over those of its base."""
    base = content.pop("base", None)
    own = check_values(TrainConfig, content, str(spec))
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{spec}: base: found {shown(base)}, expected the name of a file")
    below = read_toml(TrainConfig, base, spec.parent) if base else {}
    values = overlaid(TrainConfig, below, own)
    return {name: value for name, value in values.items() if name not in OF_A_TRIAL}


def _table(found: Any, source: str) -> dict[str, Any]:
    if not isinstance(found, dict) or not found:
        raise ConfigError(f"{source}: found {shown(found)}, expected a table of options")
    names = Counter(name.replace("-", "_") for name in found)
    for name, number in names.items():
        if number > 1:
            raise ConfigError(f"{source}: {name}: found it twice, once with a dash; expected one")
    if {"epochs", "steps"} <= names.keys():
        raise ConfigError(f"{source}: epochs: found steps beside it, expected one of them")
    return found


def _combinations(table: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """All of a grid; the last option changes fastest."""
    values = {name: _choices(name, found, source) for name, found in table.items()}
    number = math.prod(map(len, values.values()))
    if number > MAX_TRIALS:
        raise ConfigError(f"{source}: found {number:,} combinations, expected at most {MAX_TRIALS}")
    return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]


def _choices(name: str, found: Any, source: str) -> list[Any]:
    """The values of an option of a grid, checked; one alone need not be a list."""
    values = found if isinstance(found, list) else [found]
    if not values:
        raise ConfigError(f"{source}: {name}: found no value, expected some")
    return [_checked(name, value, source) for value in values]


def _checked(name: str, value: Any, source: str) -> Any:
    (checked,) = check_values(TrainConfig, {name: value}, source).values()
    (item,) = (item for item in fields(TrainConfig) if item.name == name.replace("-", "_"))
    if not details(item).decides:
        raise ConfigError(f"{source}: {name}: found an option that does not decide the result")
    return checked


def _draws(table: dict[str, Any], source: str, seed: int) -> list[dict[str, Any]]:
    """The options of each trial, drawn."""
    options = dict(table)
    count = options.pop("trials", None)
    if type(count) is not int or not 1 <= count <= MAX_TRIALS:
        raise ConfigError(
            f"{source}: trials: found {shown(count)}, expected a whole number of 1 to {MAX_TRIALS}"
        )
    if not options:
        raise ConfigError(f"{source}: found no option, expected some that are drawn")
    ranges = {name: _range(name, found, source) for name, found in options.items()}
    chosen: dict[str, dict[str, Any]] = {}
    for number in range(count):
        drawn = ((json.dumps(each), each) for each in _draw(ranges, seed, number))
        fresh = next((pair for pair in drawn if pair[0] not in chosen), None)
        if fresh is None:
            raise ConfigError(
                f"{source}: trials: found {count}, but {number} are all that differ; take [grid]"
            )
        chosen[fresh[0]] = fresh[1]
    return list(chosen.values())


def _draw(ranges: Mapping[str, Choice | Range], seed: int, number: int) -> Iterator[dict[str, Any]]:
    """The options of a trial, and others in case that an earlier trial has drawn the same."""
    for attempt in range(MAX_ATTEMPTS):
        key = stream(seed, Purpose.SWEEP, step=number, micro_batch=attempt)
        parts = uniform(key.random_raw(len(ranges))).tolist()
        pairs = zip(ranges.items(), parts, strict=True)
        yield {name: each.at(part) for (name, each), part in pairs}


@dataclass(frozen=True)
class Choice:
    """One of some values, all as likely."""

    values: Sequence[Any]

    def at(self, part: float) -> Any:
        """The value for a number from 0 to below 1."""
        return self.values[int(part * len(self.values))]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, whole if they are; evenly, or evenly in its logarithm.

    Rounded to three digits: enough, and legible.
    """

    low: float
    high: float
    log: bool

    def at(self, part: float) -> float:
        """The value for a number from 0 to below 1."""
        if isinstance(self.low, int) and not self.log:
            return self.low + int(part * (self.high - self.low + 1))
        if self.log:
            value = self.low * (self.high / self.low) ** part
        else:
            value = self.low + part * (self.high - self.low)
        if isinstance(self.low, int):
            return round(value)
        return min(max(float(f"{value:.3g}"), self.low), self.high)


def _range(name: str, found: Any, source: str) -> Choice | Range:
    if not isinstance(found, dict):
        return Choice(_choices(name, found, source))
    label = f"{source}: {name}"
    unknown = sorted(found.keys() - {"low", "high", "log"})
    if unknown or not {"low", "high"} <= found.keys():
        raise ConfigError(f"{label}: found {shown(found)}, expected low, high and perhaps log")
    low, high = (_checked(name, found[end], source) for end in ("low", "high"))
    log = found.get("log", False)
    if type(low) not in (int, float) or type(log) is not bool or not low < high:
        raise ConfigError(f"{label}: found {shown(found)}, expected numbers, low below high")
    if log and low <= 0:
        raise ConfigError(f"{label}: found low {low} with log, expected more than 0")
    return Range(low, high, log)


def _varied(chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options that have not one value in all trials."""
    names = dict.fromkeys(name for each in chosen for name in each)
    return [
        name
        for name in names
        if len({json.dumps(each.get(name)) for each in chosen}) > 1 or len(chosen) == 1
    ]


def _trial(
    spec: Path,
    out: Path,
    shared: Mapping[str, Any],
    chosen: Mapping[str, Any],
    varied: Sequence[str],
) -> Trial:
    told = {name: chosen[name] for name in varied if name in chosen}
    name = _name(told)
    values = overlaid(TrainConfig, shared, {key.replace("-", "_"): v for key, v in chosen.items()})
    try:
        config = config_of({**values, "out": str(out / name), "quiet": True})
    except ConfigError as error:
        raise ConfigError(f"{spec}: trial {name}: {error}") from None
    return Trial(name, out / name, told, config)


def _name(chosen: Mapping[str, Any]) -> str:
    """`lr=0.01,optimizer=adam`: a name of a directory, never too long."""
    words = (f"{name}={text_of(value)}" for name, value in chosen.items())
    name = re.sub(r"[^\w.+=,-]", "_", ",".join(words)) or "trial"
    if len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def text_of(value: Any) -> str:
    """The value of an option in few characters."""
    if isinstance(value, tuple | list):
        return "-".join(map(text_of, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
