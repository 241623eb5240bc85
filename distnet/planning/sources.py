"""From options and measured runs to what a plan is computed from, and what nobody measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.options import ConfigError, read_unchecked
from distnet.planning.failures import Failures
from distnet.planning.links import Link
from distnet.planning.model import Way, Workload
from distnet.planning.options import PlanOptions
from distnet.training.config import config_of
from distnet.training.files.checkpoint_directory import latest
from distnet.training.files.metrics import read_events
from distnet.training.files.model_file import CHECKPOINTS

HOUR = 3600.0
SIZES = ("batch_size", "micro_batch_size")  # that a run's configuration has
WINDOW_PART = 0.5  # of a micro-batch, where nobody has measured it


@dataclass(frozen=True)
class Measured:
    """What a run has left of itself.

    config: its options. num_ranks: on how many it ran. seconds: of computing, of each rank and
    epoch, by step; micro_batches: the same. deviation: of the time of a step, as a part of it.
    step_seconds: how long a step took, 0 if it is not known. parameters, vectors: how many numbers
    were trained, and vectors of the optimizer; 0 without a checkpoint.
    """

    name: str
    config: dict[str, Any]
    num_ranks: int
    seconds: tuple[float, ...]
    micro_batches: tuple[float, ...]
    deviation: float
    step_seconds: float
    parameters: int
    vectors: int

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Raises ConfigError for what is no directory of a run that has come to an evaluation."""
        if not (path / "config.toml").is_file():
            raise ConfigError(f"{path}: found no config.toml, expected the directory of a run")
        config = read_unchecked(path / "config.toml")
        if not all(isinstance(config.get(name), int) for name in SIZES):
            sizes = " and ".join(SIZES)
            raise ConfigError(f"{path}: found no {sizes} in config.toml, expected both")
        epochs = [e for e in read_events(path / "metrics.jsonl", "epoch") if e.get("micro_batches")]
        if not epochs:
            raise ConfigError(f"{path}: found no epoch in metrics.jsonl, expected a measured one")
        try:
            return cls._of(path, config, epochs)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{path}: metrics.jsonl is damaged ({error!r:.100}), expected that of a run"
            ) from None

    @classmethod
    def _of(cls, path: Path, config: dict[str, Any], epochs: Sequence[dict[str, Any]]) -> Measured:
        seconds: list[float] = []
        micro_batches: list[float] = []
        deviations: list[float] = []
        before = 0
        for epoch in epochs:
            steps, before = max(epoch["step"] - before, 1), epoch["step"]
            seconds += [each / steps for each in epoch["compute_seconds"]]
            micro_batches += [each / steps for each in epoch["micro_batches"]]
            deviations += epoch.get("compute_deviation") or []
        rate = epochs[-1].get("images_per_second") or 0.0
        parameters, vectors = _sizes(path)
        return cls(
            str(path),
            config,
            len(epochs[-1]["micro_batches"]),
            tuple(seconds),
            tuple(micro_batches),
            float(np.median(deviations)) if deviations else 0.0,
            config["batch_size"] / rate if rate else 0.0,
            parameters,
            vectors,
        )


@dataclass(frozen=True)
class Plan:
    """What there is to compute from; unknown: what nobody has measured, a line each."""

    workload: Workload
    way: Way
    link: Link
    failures: Failures
    vectors: int
    measured: tuple[Measured, ...]
    unknown: tuple[str, ...]


def plan_of(options: PlanOptions) -> Plan:
    """What the options and their runs say; raises ConfigError."""
    runs = tuple(Measured.read(Path(path)) for path in options.runs)
    filled = _filled(options, runs)
    unknown: list[str] = []
    if runs and not options.micro_batch_seconds:
        filled = _computing(filled, runs, unknown)
    _check(filled)
    if not filled.deviation:
        unknown.append("how much the time of a micro-batch varies: taken as not at all")
    if filled.window_seconds < 0:
        part = WINDOW_PART * filled.micro_batch_seconds
        filled = replace(filled, window_seconds=part)
        unknown.append(
            f"behind how much of backward messages hide: taken as {part * 1e3:.3g} ms, half of a "
            "micro-batch (`distnet bench scaling` measures it)"
        )
    if filled.message_bytes == (0,):
        unknown.append(
            f"what messages cost: taken as {filled.latency:g} ms and {filled.bandwidth:g} Mbit/s "
            "for all sizes (`distnet bench plan` measures it)"
        )
    unknown += _always_unknown(filled)
    workload = Workload(
        filled.parameters,
        filled.batch_size,
        filled.micro_batch_size,
        filled.micro_batch_seconds,
        filled.deviation,
        filled.step_seconds,
        filled.window_seconds,
    )
    way = way_of(filled)
    expect_trainable(workload, way)
    return Plan(
        workload,
        way,
        link_of(filled),
        failures_of(filled),
        filled.optimizer_vectors,
        runs,
        tuple(unknown),
    )


def way_of(options: PlanOptions) -> Way:
    """How ranks come to one state."""
    return Way(
        options.reduction,
        options.islands if options.sync == "local" else 0,
        options.sync_every,
        options.sync_reduction,
        options.bucket_bytes,
        options.algorithm,
        options.shard_optimizer,
    )


def expect_trainable(workload: Workload, way: Way) -> None:
    """Raises ConfigError, as training does, for what no run can be."""
    values = {
        "batch_size": workload.batch_size,
        "micro_batch_size": workload.micro_batch_size,
        "reduction": way.reduction,
        "bucket_bytes": way.bucket_bytes,
        "shard_optimizer": way.shards,
    }
    rarely = {
        "sync": "local",
        "islands": way.islands,
        "sync_every": way.sync_every,
        "sync_reduction": way.sync_reduction,
    }
    config_of(values | rarely if way.islands else values)


def is_trainable(workload: Workload, way: Way) -> bool:
    """Whether a run can be that."""
    try:
        expect_trainable(workload, way)
    except ConfigError:
        return False
    return True


def link_of(options: PlanOptions) -> Link:
    """What was timed, or else a latency and a bandwidth; raises ConfigError."""
    sizes, seconds = options.message_bytes, options.message_seconds
    if sizes == (0,):
        return Link.of(options.latency * 1e-3, options.bandwidth * 1e6 / 8)
    if len(sizes) != len(seconds) or len(sizes) < 2 or list(sizes) != sorted({*sizes} - {0}):
        raise ConfigError(
            f"message_bytes: found {len(sizes)} sizes and {len(seconds)} message_seconds, expected "
            "as many, at least two, by increasing size"
        )
    return Link.measured(sizes, seconds)


def failures_of(options: PlanOptions) -> Failures:
    """How often hosts fail, and what it takes to go on."""
    return Failures(
        options.mtbf_hours * HOUR,
        options.restart_seconds,
        options.repair_seconds,
        options.checkpoint_seconds,
        options.checkpoint_interval,
    )


def _filled(options: PlanOptions, runs: Sequence[Measured]) -> PlanOptions:
    """With what the runs say where the options say nothing; the last run wins."""
    known: dict[str, Any] = {}
    for run in runs:
        for name in SIZES:
            known[name] = run.config[name]
        if run.parameters:
            known |= {"parameters": run.parameters, "optimizer_vectors": run.vectors}
    for name in SIZES:
        found = {run.config[name] for run in runs}
        if len(found) > 1:
            raise ConfigError(f"runs: found {name} {found}, expected runs of one network and batch")
    return replace(options, **{k: v for k, v in known.items() if not _is_given(options, k)})


def _is_given(options: PlanOptions, name: str) -> bool:
    return name != "optimizer_vectors" and bool(getattr(options, name))


def _computing(options: PlanOptions, runs: Sequence[Measured], unknown: list[str]) -> PlanOptions:
    """The time of a micro-batch and of what is not shared out: a line through all that ran."""
    counts = np.array([m for run in runs for m in run.micro_batches])
    seconds = np.array([s for run in runs for s in run.seconds])
    deviation = options.deviation or float(np.median([run.deviation for run in runs]))
    each, alone = 0.0, options.step_seconds
    differ = counts.max() > 1.2 * counts.min()
    if differ and not alone:
        each, alone = map(float, np.polyfit(counts, seconds, 1))
    if each <= 0:  # the runs do not tell
        alone, busy = options.step_seconds, counts > 0
        each = float(np.median((seconds - alone)[busy] / counts[busy]))
        if not alone:
            odd = "in the runs a rank computed no longer for more micro-batches"
            cure = odd if differ else "a second run with another number of ranks tells"
            unknown.append(
                "what of a step every rank does for itself: taken as nothing, which flatters many "
                f"ranks ({cure})"
            )
    if each <= 0:
        raise ConfigError(
            f"step_seconds: found {alone:g}, expected less than a rank computed in a step of the "
            f"runs, {float(np.median(seconds)):.3g}"
        )
    # That of a step of m micro-batches is the m-th root's part of that of one.
    deviation *= math.sqrt(float(np.median(counts))) if not options.deviation else 1.0
    alone = max(alone, 0.0)
    return replace(options, micro_batch_seconds=each, step_seconds=alone, deviation=deviation)


def _check(options: PlanOptions) -> None:
    needed = ("parameters", "batch_size", "micro_batch_size", "micro_batch_seconds")
    missing = [name for name in needed if not getattr(options, name)]
    if missing:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise ConfigError(
            f"found no {flags}, expected them, or the directory of a run that was measured and has "
            "a checkpoint"
        )


def _always_unknown(options: PlanOptions) -> Iterator[str]:
    yield "evaluation, checkpoints and comparisons of the ranks: steps alone are counted"
    if options.sync == "local" or options.batch_size % options.micro_batch_size:
        yield "what a micro-batch costs that is short: taken in proportion to its samples"
    if options.ranks_per_host > 1:
        yield "whether ranks of a host slow each other down (memory, caches): taken as not"
    if options.sync == "local":
        yield "what rare synchronisation costs in accuracy: train, and compare"
    if options.grow_batch:
        yield "how the network learns with a larger batch: train, and compare"
    if options.mtbf_hours:
        yield "whether failures come one by one, as assumed, or together (a switch, a room)"


def _sizes(path: Path) -> tuple[int, int]:
    """How many numbers are trained, and how many vectors of the optimizer belong to them."""
    newest = latest(path / CHECKPOINTS).checkpoint
    if newest is None:
        return 0, 0
    parameters = sum(a.size for name, a in newest.state.items() if name.startswith("params."))
    kept = sum(a.size for name, a in newest.state.items() if name.startswith("optimizer."))
    return parameters, round(kept / max(parameters, 1))
