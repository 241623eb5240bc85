"""What a new run finds where its results shall go, and what it may do with it.

Results of an earlier run are never replaced unasked, and what is no run's never. `--out` names the
directory; without it there is a default, and the second run gets that with `-2`, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from distnet.base.files import real
from distnet.base.options import ConfigError, read_unchecked
from distnet.training.files.checkpoint_directory import LATEST, best_path, newest_step
from distnet.training.files.directory_lock import DirectoryInUseError, DirectoryLock

FILES = ("config.toml", "metrics.jsonl", "summary.json")  # beside the checkpoints
Lock = Callable[[Path], DirectoryLock]


def claim(out: str, default: str, resume: str, *, overwrite: bool, lock: Lock) -> DirectoryLock:
    """The directory for the results of a run, locked for it.

    out, resume, overwrite: the options; default: the directory that is taken without `out`.
    Raises OSError, one line, if it is in use, or not to be written to.
    """
    if out:
        return _claimed(Path(out), resume, overwrite, lock)
    if overwrite or resume:
        path = _resumed(Path(default), resume) if resume else Path(default)
        return _claimed(path, resume, overwrite, lock)
    for path in _numbered(Path(default)):
        if not _holds_run(path):
            try:
                return _claimed(path, resume, overwrite, lock)
            except (DirectoryInUseError, _HoldsRunError):
                continue
    raise AssertionError("there is no last number")


def files_of(directory: Path) -> list[Path]:
    """All that an earlier run has left beside its checkpoints."""
    return [directory / name for name in FILES if (directory / name).exists()]


def init_of(directory: Path, source: str) -> str | None:
    """The `--init` with which the run began that goes on from `source`; None if nobody knows.

    source: LATEST, of the run in `directory`, or a checkpoint of another one. It does not tell
    itself, as the weights of the beginning are no part of it.
    """
    run = directory if source == LATEST else Path(source).parent.parent
    try:
        found = read_unchecked(run / "config.toml").get("init")
    except ConfigError:
        return None
    return found if isinstance(found, str) else None


@contextmanager
def as_bad_input(path: Path) -> Iterator[None]:
    """Says in an OSError of the system from within that the directory `path` cannot be used."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # one that says all already
            raise
        raise OSError(
            f"--out: found {path}, where nothing can be written ({error.strerror}), "
            "expected a directory for results"
        ) from error


class _HoldsRunError(OSError):
    """An earlier run would be written over."""


def _claimed(path: Path, resume: str, overwrite: bool, lock: Lock) -> DirectoryLock:
    held = lock(path)
    with as_bad_input(path):
        held.acquire()
    try:
        if resume not in ("", LATEST):
            inside = real(resume).is_relative_to(real(path / "checkpoints"))
        else:
            inside = resume == LATEST
        _check_own(path)
        if _holds_run(path) and not (inside or overwrite):
            state = "finished" if (path / "summary.json").exists() else "not finished"
            raise _HoldsRunError(
                f"--out: found the results of a run, {state}, in {path}; go on with it by "
                "--resume, replace it by --overwrite, or give another --out"
            )
    except BaseException:
        held.release()
        raise
    return held


def _check_own(path: Path) -> None:
    """Raises OSError if one of the files that a run writes is there and not of a run."""
    metrics = path / "metrics.jsonl"
    if metrics.exists():
        foreign = [] if _is_of_a_run(metrics) else ["metrics.jsonl"]
    else:
        foreign = [] if _holds_checkpoints(path) else [file.name for file in files_of(path)]
    if foreign:
        raise OSError(
            f"--out: found {path / foreign[0]}, which no run has left and a run would replace; "
            "give another --out"
        )


def _is_of_a_run(metrics: Path) -> bool:
    with metrics.open("rb") as file:
        line = file.readline(100_000)
    try:
        return not line.endswith(b"\n") or {"event", "step"} <= set(json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return False


def _holds_checkpoints(path: Path) -> bool:
    checkpoints = path / "checkpoints"
    return newest_step(checkpoints) is not None or best_path(checkpoints).exists()


def _holds_run(path: Path) -> bool:
    """Whether there are results, or a state to go on from."""
    return (path / "summary.json").exists() or _holds_checkpoints(path)


def _numbered(default: Path) -> Iterator[Path]:
    yield default
    for number in count(2):
        yield default.with_name(f"{default.name}-{number}")


def _resumed(default: Path, resume: str) -> Path:
    """The one to go on in: that of the file, or the last one that holds a run; else the first."""
    last = default
    for path in _numbered(default):
        if not _holds_run(path):
            break
        last = path
        if resume and real(resume).is_relative_to(real(path)):
            break
    return last
