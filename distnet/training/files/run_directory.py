"""The directory of a run: config.toml, metrics.jsonl, checkpoints/ and, at its end, summary.json.

One rank writes; on the others every call does nothing. A directory that cannot be used at the start
is bad input. A disk that is full later ends nothing: each failure is a warning, writing is tried
again with the next line or checkpoint, and `close` tells whether everything is there in the end.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from distnet.base.files import remove_partial_files, write_atomically
from distnet.parallel.communicator import Communicator
from distnet.training.files import checkpoint_directory, earlier_runs
from distnet.training.files.checkpoint import Checkpoint
from distnet.training.files.checkpoint_writer import CheckpointWriter
from distnet.training.files.directory_lock import DirectoryLock
from distnet.training.files.earlier_runs import as_bad_input
from distnet.training.files.metrics import Metrics, plain, write_summary
from distnet.training.files.mirrors import MIRRORS, Mirror, mirrored

CARD = "README.md"
CARD_MARK = "<!-- written by distnet when the run ended, and again when it goes on -->"


class RunDirectory:
    """What a run writes under `path`, on rank 0; `warn` shows a line to the user.

    keep: newest checkpoints that are kept, 0 for all. lock: of the directory, if others may want
    it; held from when it was claimed to `close`. mirrors: the names of MIRRORS to write. When rank
    0 is lost, the one that takes its number opens the directory and writes from then on.
    """

    def __init__(
        self,
        path: Path,
        keep: int,
        *,
        comm: Communicator,
        warn: Callable[[str], None],
        lock: DirectoryLock | None = None,
        mirrors: Sequence[str] = (),
    ) -> None:
        self.path, self._comm = path, comm
        self.checkpoints, self.summary = path / "checkpoints", path / "summary.json"
        self._keep, self._warn, self._lock = keep, warn, lock
        self._mirror_names, self._mirrors = mirrors, dict[str, Mirror]()
        self._is_open, self._began = False, time.monotonic()
        self._problems: dict[str, str] = {}  # what could not be written, and why

    @property
    def writes(self) -> bool:
        return self._comm.rank == 0

    def set_aside(self, step: int) -> Path | None:
        """Moves checkpoints of later steps than `step` away, see `checkpoint_directory.set_aside`.

        With what was told of these steps; where there are no checkpoints yet, that alone.
        """
        if not self.writes:
            return None
        with as_bad_input(self.path):
            aside = checkpoint_directory.set_aside(self.checkpoints, step)
            metrics = self.path / "metrics.jsonl"
            if aside is None and (step or not metrics.exists() or not metrics.stat().st_size):
                return None
            aside = aside or checkpoint_directory.new_aside(self.checkpoints)
            for path in earlier_runs.files_of(self.path):
                shutil.copyfile(path, aside / path.name)
            return aside

    def remove_earlier_run(self) -> None:
        """Deletes what a run has left here: its checkpoints, metrics, summary and configuration."""
        if not self.writes:
            return
        with as_bad_input(self.path):
            checkpoint_directory.remove_all(self.checkpoints)
            for path in [*earlier_runs.files_of(self.path), *mirrored(self.path)]:
                path.unlink()

    @property
    def is_finished(self) -> bool:
        """Whether the run whose files are here has ended; False on ranks that do not write."""
        return self.writes and self.summary.exists()

    def open(self, config: str, start: Checkpoint, goes_on: bool = False) -> None:
        """Begins, or goes on, with the state `start`; raises OSError if it cannot be written.

        A summary says that a run has ended, so an earlier one is removed. goes_on: after a loss, in
        a job that is under way, which a full disk does not end.
        """
        if not self.writes:
            return
        if self._lock is not None:
            self._lock.acquire()
        with as_bad_input(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.checkpoints).close()
            remove_partial_files(self.path)
            remove_partial_files(self.checkpoints)
            self.summary.unlink(missing_ok=True)
            if self._card_is_ours():
                (self.path / CARD).unlink(missing_ok=True)
            if not (goes_on and (self.path / "config.toml").exists()):
                write_atomically(self.path / "config.toml", config.encode())
            # A state that has sums over steps is one before their evaluation.
            evaluates = bool(start.record.get("num_samples"))
            self._metrics = Metrics(self.path / "metrics.jsonl", start.step, evaluates)
            self._begin_mirrors(goes_on)
            for line in map(json.loads, self._metrics.kept):
                self._mirror(line)
            owed = self._owed_best(start)
        self._writer = CheckpointWriter(self.checkpoints, self._keep, like=start, owed=owed)
        self._began_at = start.step
        self._is_open = True

    def _owed_best(self, start: Checkpoint) -> int | None:
        """The step of the best checkpoint so far, if that is not there and cannot be made."""
        step = start.record.get("best_step", 0)
        is_complete = not 0 < step <= start.step
        with suppress(OSError):  # without room it is owed
            is_complete = is_complete or checkpoint_directory.complete_best(self.checkpoints, step)
        return None if is_complete else int(step)

    def log(self, event: str, step: int, **values: object) -> None:
        """A line of metrics.jsonl, with the time (UTC) and the seconds since this run began."""
        if self.writes:
            line = {"time": _now(), "seconds": round(time.monotonic() - self._began, 3), **values}
            self._try("metrics.jsonl", lambda: self._metrics.write(event, step, **line))
            self._mirror({"event": event, "step": step, **line})

    def save(self, state: Checkpoint, is_best: bool) -> None:
        """Begins to write a checkpoint in the background, when the one before it is finished."""
        if self.writes:
            self.check(wait=True)
            self.log("checkpoint", state.step)
            self._writer.start(state, is_best)

    def check(self, wait: bool = False) -> None:
        """Warns if a checkpoint could not be written; to be called after each step."""
        written = self._writer.finished(wait) if self.writes else None
        if written is not None:
            self._note("checkpoint", f"checkpoint of step {written.step}", written.error)

    def describe(self, card: str) -> None:
        """Writes README.md with this text, unless there is one that no run has written."""
        if self.writes and self._card_is_ours():
            text = f"{CARD_MARK}\n\n{card}"
            self._try(CARD, lambda: write_atomically(self.path / CARD, text.encode()))

    def _card_is_ours(self) -> bool:
        """Whether README.md is one of a run, or is not there."""
        path = self.path / CARD
        if not path.exists():
            return True
        with suppress(OSError), path.open("rb") as file:
            return file.readline(200).rstrip() == CARD_MARK.encode()
        return False

    def summarize(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, the sign that the run has ended: after its last checkpoint."""
        if self.writes:
            self.check(wait=True)
            self._try("summary.json", lambda: write_summary(self.summary, summary))

    def close(self) -> bool:
        """Finishes writing; whether the last checkpoint, all metrics and the summary are there."""
        if self._is_open:
            self._is_open = False
            self.check(wait=True)
            self._tell_of_best(self._writer.owed)
            self._try("metrics.jsonl", self._metrics.flush)
            self._writer.close()
            self._metrics.close()
            for name, mirror in self._mirrors.items():
                self._try(name, mirror.flush)
                mirror.close()
        self.release()
        return not self._problems

    def _tell_of_best(self, owed: int | None) -> None:
        """Tells that the best checkpoint, of step `owed`, is missing: a problem if of this run."""
        if owed is None:
            return
        path = checkpoint_directory.best_path(self.checkpoints)
        found = "that of an earlier step" if path.exists() else "none"
        text = f"{path}: found {found}, expected that of step {owed}, the best so far, which is not"
        text += " on disk; to have it, go on from a checkpoint before that step"
        self._warn(text)
        if owed > self._began_at:
            self._problems["best"] = text

    def release(self) -> None:
        """Leaves the directory to other jobs."""
        if self._lock is not None:
            self._lock.release()

    def _begin_mirrors(self, goes_on: bool) -> None:
        self._mirrors = {}
        for name in self._mirror_names:
            try:
                self._mirrors[name] = MIRRORS[name](self.path)
            except OSError as error:
                if not goes_on:
                    raise
                self._note(name, name, error)

    def _mirror(self, line: Mapping[str, Any]) -> None:
        for name, mirror in self._mirrors.items():
            self._try(name, partial(mirror.add, plain(line)))

    def _try(self, name: str, write: Callable[[], None]) -> None:
        error: OSError | None = None
        try:
            write()
        except OSError as failure:
            error = failure
        self._note(name, name, error)

    def _note(self, kind: str, name: str, error: OSError | None) -> None:
        """Shows a problem that is new, forgets the one before if there is none any more."""
        if error is None:
            self._problems.pop(kind, None)
            return
        problem = f"{self.path}: {name} could not be written ({error.strerror or error})"
        if self._problems.get(kind) != problem:
            self._warn(f"{problem}; the run goes on, and the next time it is tried again")
        self._problems[kind] = problem


def _now() -> str:
    """ISO 8601, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
