"""What a run writes for programs to read: metrics.jsonl and summary.json."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.files import write_atomically


class AppendedFile:
    """A file that begins with `content` and grows; what cannot be written at once is kept.

    Its bytes survive this process as soon as they are written. It takes the place of one that is
    there, to which a process that was given up may still write. On a full disk, for which there is
    no such room, one that begins so already is cut off.
    """

    def __init__(self, path: Path, *content: bytes) -> None:
        whole = b"".join(content)
        try:
            write_atomically(path, whole)
        except OSError:
            if not whole or not path.exists() or not path.read_bytes().startswith(whole):
                raise
            os.truncate(path, len(whole))
        self._file = path.open("ab", buffering=0)
        self._unwritten = bytearray()

    def write(self, content: bytes) -> None:
        """Appends; raises OSError, and then writes it before what comes next."""
        self._unwritten += content
        self.flush()

    def flush(self) -> None:
        """Writes what an earlier call could not; raises OSError."""
        while self._unwritten:
            del self._unwritten[: self._file.write(self._unwritten)]

    def close(self) -> None:
        """No more."""
        self._file.close()


class Metrics:
    """Appends JSON lines, `{"event": ..., "step": ..., ...}`, to a file.

    A run resumed at step `first_step` keeps the lines up to that step of the run before it, `kept`,
    and cuts off the others, as well as a line that was not finished, so every step is told once. A
    run from scratch (0) starts a new file. Write the lines of a step before its checkpoint.
    evaluates: whether it begins with the evaluation of that step, and tells of it once more.
    """

    def __init__(self, path: Path, first_step: int, evaluates: bool = False) -> None:
        self.kept = list(_lines_up_to(path, first_step, evaluates)) if first_step else []
        self._file = AppendedFile(path, *self.kept)

    def write(self, event: str, step: int, **values: object) -> None:
        """One line, which survives this process from then on; numbers not finite become null.

        Raises OSError; what could not be written is kept, and comes before the next line.
        """
        self._file.write((_json({"event": event, "step": step, **values}) + "\n").encode())

    def flush(self) -> None:
        """Writes what an earlier call could not; raises OSError."""
        self._file.flush()

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def read_events(path: Path, event: str) -> Iterator[dict[str, Any]]:
    """The lines of that event in a metrics.jsonl, in order; none if there is no file.

    A line that is not finished, or is no JSON object with a step, is passed over. Raises OSError.
    """
    if not path.is_file():  # a pipe could wait for ever
        return
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        is_one = isinstance(entry, dict) and entry.get("event") == event
        if is_one and isinstance(entry.get("step"), int):
            yield entry


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """The results of a finished run as one JSON object; numbers not finite become null."""
    write_atomically(path, (_json(summary, indent=2) + "\n").encode())


def _lines_up_to(path: Path, step: int, evaluates: bool) -> Iterator[bytes]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line)
            kept = line.endswith(b"\n") and entry["step"] <= step
            kept = kept and not (evaluates and (entry["event"], entry["step"]) == ("epoch", step))
        except (ValueError, KeyError, TypeError, RecursionError):
            kept = False
        if kept:
            yield line


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """`value` as strict JSON can say it, which knows neither NaN nor NumPy's numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
