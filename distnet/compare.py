"""`distnet compare A B`: where do two runs part, and why?

By their step hashes and checkpoints; with `--rerun` both are run again, side by side, from the last
checkpoint that they have in common.

Exit codes: 0 the same bits after every step that is known of both, 1 they differ, 2 wrong usage or
input, 74 compared, but not told: standard output failed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distnet.base.blas import one_blas_thread
from distnet.base.command import one_line
from distnet.base.options import argument, option, parse_options
from distnet.base.output import write_now
from distnet.base.words import counted
from distnet.building.parts import dataset_of, objective_of, parts_of, start_of, trainer_of
from distnet.parallel import SerialCommunicator
from distnet.parallel.errors import AgreedError
from distnet.training.comparison import ArrayDifference, Comparison, Evidence, compare
from distnet.training.config import defaults_of, identity, parse
from distnet.training.files import checkpoint as checkpoints
from distnet.training.files.checkpoint import Checkpoint, CheckpointError
from distnet.training.files.compatibility import check_compatible, with_defaults
from distnet.training.job import DONE, NOT_WRITTEN
from distnet.training.side_by_side import Rerun, rerun
from distnet.training.step.trainer import Trainer
from distnet.training.watching.step_hashes import state_sha256

NUM_SHOWN = 5  # arrays, of those that differ
OTHERWISE = (
    "configuration, data and kernels are the same: memory that failed, other code, or another "
    "number of ranks where an inexact sum was used"
)


@dataclass(frozen=True)
class CompareOptions:
    """Finds the first step, array and element in which two runs differ, and the likely cause."""

    one: str = argument("directory of a run, or a checkpoint", "A", path=True)
    other: str = argument("another one", "B", path=True)
    rerun: bool = option(
        False,
        "run both again, in this process, from the last checkpoint that they have in common (or "
        "from the start) to where they part: finds the very step, and the part of it",
        group="computing",
    )
    json: bool = option(False, "JSON in place of lines", group="output")


@one_line(ValueError, OSError, AgreedError)
def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    options = parse_options(CompareOptions, argv, "distnet compare")
    paths = Path(options.one), Path(options.other)
    found = compare(*paths)
    again = None
    if options.rerun and found.parted is not None:
        with one_blas_thread():
            again = run_again(paths, found)
    if options.json:
        text = json.dumps(asdict(found) | {"rerun": again and asdict(again)}, indent=2)
    else:
        text = "\n".join([*lines(paths, found, again), *lines_of_rerun(paths, again)])
    if write_now(sys.stdout, f"{text}\n"):
        return NOT_WRITTEN
    return DONE if found.parted is None else 1


def lines(paths: Sequence[Path], found: Comparison, again: Rerun | None) -> Iterator[str]:
    """What is said of a comparison."""
    steps = found.steps
    compared = f"{len(steps)} steps of {steps[0]} to {steps[-1]}" if len(steps) > 1 else "one step"
    yield from found.problems
    if found.parted is None:
        yield f"the same bits after step {steps[-1]} ({compared} compared)"
        yield from (f"although they differ in {cause}" for cause in found.causes)
        return
    same = "different" if found.same is None else f"the same after step {found.same}, different"
    yield f"{same} after step {found.parted} ({compared} in both)"
    if again is None or again.parted is None:
        if found.located not in (None, found.parted):
            yield f"after step {found.located}, of which both have a checkpoint:"
        yield from _arrays(found.arrays)
    yield from (f"likely cause: {cause}" for cause in found.causes)
    if not found.causes:
        yield OTHERWISE
    can_rerun = all(path.is_dir() for path in paths)  # a checkpoint alone does not tell how
    if again is None and can_rerun and found.parted > (found.same or 0) + 1:
        one, other = paths
        yield f"which step it is, and which part of it: distnet compare {one} {other} --rerun"


def lines_of_rerun(paths: Sequence[Path], again: Rerun | None) -> Iterator[str]:
    """What is said of both runs when they were made again."""
    if again is None:
        return
    yield f"run again here, in one process, from step {again.start} to step {again.stop}:"
    if again.parted is None:
        yield "the same bits: their configurations are not the cause"
    else:
        yield f"different after step {again.parted}; in it, first: {again.within}"
        yield from _arrays(again.arrays)
    for path, checked, strayed in zip(paths, again.checked, again.strayed, strict=True):
        if strayed is not None:
            yield (
                f"{path}: the state after step {strayed} is not what was recorded: it was computed "
                "with other kernels, data, code, ranks of an inexact sum, or memory that failed"
            )
        elif checked:
            yield f"{path}: as it was recorded ({counted(checked, 'state')} checked)"


def run_again(paths: Sequence[Path], found: Comparison) -> Rerun:
    """Both runs from the last checkpoint that they have in common to where they part."""
    runs = [Evidence.of(path) for path in paths]
    common = runs[0].checkpoints.keys() & runs[1].checkpoints.keys()
    start = max((step for step in common if step <= (found.same or 0)), default=0)
    starts = [run.load(start) if start in run.checkpoints else None for run in runs]
    trainers = [trainer_again(path, at) for path, at in zip(paths, starts, strict=True)]
    stop = found.parted or start
    return rerun(trainers, start, stop, [_recorded(run, start, stop) for run in runs])


def trainer_again(path: Path, start: Checkpoint | None) -> Trainer:
    """The trainer of the run in `path`, with the state of a checkpoint or as it started.

    Raises CheckpointError if its configuration and data are not those of the checkpoint any more.
    """
    if not (path / "config.toml").is_file():
        raise CheckpointError(
            f"--rerun: {path}: found no config.toml, expected the directory of a run"
        )
    config = parse(["--config", str(path / "config.toml")])
    dataset = dataset_of(config, os.environ)
    training, _ = parts_of(config, dataset)
    objective = objective_of(config, dataset, training)
    if start is None:
        start_of(config, objective.network)
    trainer = trainer_of(config, objective, training, SerialCommunicator())
    if start is not None:
        decisive = identity(config) | {"data_sha256": dataset.sha256}
        own = Checkpoint(0, trainer.state(), decisive)
        check_compatible(with_defaults(own, start, defaults_of(config)), own)
        trainer.restore(start.state)
    return trainer


def _recorded(run: Evidence, start: int, stop: int) -> dict[int, str]:
    """The hashes of the states that a run has recorded between two steps, by step."""
    saved = {
        step: state_sha256(checkpoints.load(path).state)
        for step, path in run.checkpoints.items()
        if start < step <= stop
    }
    return saved | run.chain.states


def _arrays(arrays: Sequence[ArrayDifference]) -> Iterator[str]:
    yield from map(str, arrays[:NUM_SHOWN])
    if len(arrays) > NUM_SHOWN:
        yield f"and {len(arrays) - NUM_SHOWN} arrays more"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
