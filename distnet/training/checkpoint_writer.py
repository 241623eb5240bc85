"""Writes the checkpoints of a run in the background, while training goes on.

`start` copies the state, always into the same arrays, and returns; a thread makes the file of it,
puts it on disk, keeps the best one under a second name and deletes old ones. What went wrong is
told by `finished`: a full disk must not end a run that could still be saved later.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from distnet.training.checkpoint import (
    PARTS,
    Arrays,
    Checkpoint,
    best_path,
    checkpoint_path,
    prune,
    save,
)
from distnet.training.files import write_atomically


@dataclass(frozen=True)
class Written:
    """The checkpoint of `step` is on disk, unless there is an `error`."""

    step: int
    error: OSError | None


class CheckpointWriter:
    """Keeps the newest `keep` checkpoints (0: all) and the best one of a run in `directory`."""

    def __init__(self, directory: Path, keep: int) -> None:
        self.directory, self.keep = directory, keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._arrays: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
        self._pending: Future[Written] | None = None

    def start(self, checkpoint: Checkpoint, is_best: bool = False) -> None:
        """Takes a copy and begins to write it. Only after `finished` has told of the last one."""
        if self._pending is not None:
            raise ValueError("start() before finished() has told what became of the last write")
        self._pending = self._thread.submit(self._write, self._copied(checkpoint), is_best)

    def finished(self, wait: bool = False) -> Written | None:
        """What became of the last write, once; None if there is none, or if it is still going on.

        With `wait` it is not: training stands still until the file is on disk.
        """
        if self._pending is None or not (wait or self._pending.done()):
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def close(self) -> None:
        """Ends the thread, after its last write."""
        self._thread.shutdown()

    def _copied(self, checkpoint: Checkpoint) -> Checkpoint:
        return replace(
            checkpoint,
            params=self._copies("params", checkpoint.params),
            optimizer=self._copies("optimizer", checkpoint.optimizer),
            statistics=self._copies("statistics", checkpoint.statistics),
        )

    def _copies(self, part: str, arrays: Arrays) -> Arrays:
        kept = self._arrays[part]
        for name, array in arrays.items():
            if name not in kept:
                kept[name] = np.empty_like(array)
            np.copyto(kept[name], array)
        return kept

    def _write(self, checkpoint: Checkpoint, is_best: bool) -> Written:
        path = checkpoint_path(self.directory, checkpoint.step)
        try:
            save(path, checkpoint)
            if is_best:
                write_atomically(best_path(self.directory), path.read_bytes())
            prune(self.directory, self.keep, checkpoint.step)
        except OSError as error:
            return Written(checkpoint.step, error)
        return Written(checkpoint.step, None)
