"""The checkpoints of a run in their directory: by step, the newest, the best, those set aside."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from distnet.base.files import remove_partial_files, write_atomically
from distnet.training.files.checkpoint import Checkpoint, CheckpointError, load

SET_ASIDE = "set-aside"
LATEST = "latest"  # as a source: the newest valid file of a directory
NAME = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True)
class Latest:
    """The newest valid checkpoint of a directory, if any, and what is wrong with newer ones."""

    path: Path | None
    checkpoint: Checkpoint | None
    problems: list[str]

    @property
    def warnings(self) -> list[str]:
        """A line for each newer one, which was passed over."""
        return [f"{problem}; trying the one before it" for problem in self.problems]

    @property
    def nothing(self) -> str:
        """What was found where there is no valid one."""
        if not self.problems:
            return "found no checkpoint"
        return f"found no valid checkpoint ({'; '.join(self.problems)})"


def checkpoint_path(directory: Path, step: int) -> Path:
    """Where the checkpoint after `step` updates lies."""
    return directory / f"step-{step:08d}.safetensors"


def best_path(directory: Path) -> Path:
    """Where the checkpoint with the best evaluation lies once more, whatever is pruned."""
    return directory / "best.safetensors"


def latest(directory: Path) -> Latest:
    """The newest valid checkpoint in `directory`; changes nothing. Raises OSError."""
    problems: list[str] = []
    for _, path in sorted(_files(directory), reverse=True):
        try:
            return Latest(path, load(path), problems)
        except CheckpointError as error:
            problems.append(str(error))
    return Latest(None, None, problems)


def by_step(directory: Path) -> dict[int, Path]:
    """The checkpoints in `directory`, by the step after which they were written."""
    return dict(sorted(_files(directory)))


def complete_best(directory: Path, step: int) -> bool:
    """Makes the best checkpoint that of `step`; whether it is. Raises OSError.

    It is copied when that of its step is on disk. A writer that was killed in between, or a disk
    that was full, left the best one of an earlier step there, or none.
    """
    with contextlib.suppress(CheckpointError):
        if load(best_path(directory)).step == step:
            return True
    try:
        load(checkpoint_path(directory, step))
    except CheckpointError:
        return False
    copy_best(directory, step)
    return True


def copy_best(directory: Path, step: int) -> None:
    """Makes the best checkpoint that of `step`, which is on disk. Raises OSError."""
    write_atomically(best_path(directory), checkpoint_path(directory, step).read_bytes())


def prune(directory: Path, keep: int, step: int, spared: int | None = None) -> None:
    """Deletes partial files and, of the checkpoints up to `step`, all but the newest `keep`.

    A `keep` of 0 deletes no checkpoint, and that of the step `spared` stays. For the only writer
    of the directory, after it saved `step`.
    """
    remove_partial_files(directory)
    if keep:
        reached = sorted(file for file in _files(directory) if file[0] <= step)
        for number, path in reached[:-keep]:
            if number != spared:
                path.unlink(missing_ok=True)


def newest_step(directory: Path) -> int | None:
    """The step of the newest checkpoint in `directory`, valid or not; None if there is none."""
    return max((step for step, _ in _files(directory)), default=None)


def set_aside(directory: Path, step: int) -> Path | None:
    """Moves the checkpoints of later steps than `step` to a directory, which is returned, if any.

    For a run that starts at `step` where another one got further: they are not of its own past,
    and must not be what it is resumed from.
    """
    later = [path for number, path in _files(directory) if number > step]
    best = best_path(directory)
    if best.exists() and not _is_reached(best, step):
        later.append(best)
    if not later:
        return None
    aside = new_aside(directory)
    for path in later:
        path.replace(aside / path.name)
    return aside


def new_aside(directory: Path) -> Path:
    """Another directory for what is set aside: "set-aside", "set-aside-2" and so on."""
    for number in count(1):
        aside = directory / (SET_ASIDE if number == 1 else f"{SET_ASIDE}-{number}")
        with contextlib.suppress(FileExistsError):
            aside.mkdir(parents=True)
            return aside
    raise AssertionError("there is no last number")


def remove_all(directory: Path) -> None:
    """Deletes the checkpoints of an earlier run, those set aside excepted."""
    for _, path in list(_files(directory)):
        path.unlink()
    best_path(directory).unlink(missing_ok=True)


def _is_reached(path: Path, step: int) -> bool:
    try:
        return load(path).step <= step
    except CheckpointError:
        return False


def _files(directory: Path) -> Iterator[tuple[int, Path]]:
    if directory.is_dir():
        for path in directory.iterdir():
            if match := NAME.fullmatch(path.name):
                yield int(match[1]), path
