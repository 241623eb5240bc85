"""Finds the checkpoint from which a run goes on, and makes sure that it can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from distnet.base.words import counted
from distnet.parallel.agreement import agree, together
from distnet.training.files.checkpoint import Checkpoint, CheckpointError, load
from distnet.training.files.checkpoint_directory import LATEST, latest
from distnet.training.files.compatibility import (
    check_compatible,
    with_defaults,
    with_length_of,
    with_reduction_of,
)
from distnet.training.files.model_file import other_class
from distnet.training.fingerprint import difference
from distnet.training.record import Record
from distnet.training.run import Run


def resume(
    run: Run, source: str, directory: Path, own: Checkpoint, defaults: Mapping[str, Any]
) -> list[str]:
    """Gives `run`, on all ranks, the state of a checkpoint; returns warnings.

    source: a file, or LATEST for the newest valid one in `directory`. own: the state of the run as
    it is, with which the checkpoint has to agree. defaults: the values of options which that may
    not know, since it is of an earlier version. Raises RankError on all ranks.
    """
    find = partial(_find, run, source, directory, own, defaults)
    found, record, warnings = together(run.comm, find)
    # Each rank has read it, from a file system of its host.
    agree(run.comm, {"the step of the checkpoint": found.step, "the checkpoint": found.sha256})
    other = difference(found=own.fingerprint, expected=found.fingerprint)
    if other and not run.trainer.parameters.arithmetic.rounds:
        warnings.append(f"the result may differ in its last bits from an unbroken run: {other}")
    run.trainer.restore(found.state)
    run.record, run.num_done = record, found.step
    return warnings


def _find(
    run: Run, source: str, directory: Path, own: Checkpoint, defaults: Mapping[str, Any]
) -> tuple[Checkpoint, Record, list[str]]:
    found, warnings = _read(source, directory)
    found = with_defaults(own, found, defaults)
    before, now = found.config.get("reduction"), own.config.get("reduction")
    if before != now:
        if found.step < run.total_steps:
            warnings.append(
                f"the result is not that of an unbroken run: the checkpoint of step {found.step} "
                f"was computed with reduction {before}, and this run goes on with {now}"
            )
        found = with_reduction_of(own, found)
    if _planned_steps(found, run) < run.total_steps:
        warnings.append(
            f"the run was planned for {counted(int(_planned_steps(found, run)), 'step')} and now "
            f"for {run.total_steps}: the schedule is that of the longer run, with a learning rate "
            f"of {run.trainer.schedule(found.step):g} in the next step; the result is not that of "
            "an unbroken run"
        )
        found = with_length_of(own, found)
    check_compatible(found, own)
    if other := other_class(found, own.model.get("classes", ())):
        warnings.append(f"checkpoint of step {found.step}: {other} now, as the run goes on")
    if found.step > run.total_steps:
        raise CheckpointError(
            f"checkpoint of step {found.step}: expected one up to step {run.total_steps}, the last "
            "of this run; resume with more --steps, or with an earlier checkpoint"
        )
    return found, Record.restored(found.record), warnings


def _planned_steps(found: Checkpoint, run: Run) -> float:
    """How long the run was to be; infinity if it is not known, as its schedule does not need it."""
    length = found.config
    if "steps" in length:
        return int(length["steps"])
    return int(length["epochs"]) * run.steps_per_epoch if "epochs" in length else math.inf


def _read(source: str, directory: Path) -> tuple[Checkpoint, list[str]]:
    if source != LATEST:
        return load(Path(source)), []
    newest = latest(directory)
    if newest.checkpoint is None:
        raise CheckpointError(f"{directory}: {newest.nothing}, expected one to go on from")
    return newest.checkpoint, newest.warnings
