"""What a run says: lines for the terminal, metrics.jsonl and summary.json. Rank 0 alone writes.

The only place that writes to the terminal, apart from error lines of a command that fails.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distnet.base.files import write_atomically

if TYPE_CHECKING:
    from rich.progress import Progress

REFRESH_SECONDS = 0.25

COLUMNS = (
    ("epoch", 5),
    ("step", 7),
    ("train loss", 10),
    ("test loss", 10),
    ("test accuracy", 13),
    ("images/s", 8),
    ("waiting", 7),
    ("MB/step", 7),
    ("slow rank", 9),
    ("elapsed", 8),
)


class Metrics:
    """Appends JSON lines, `{"event": ..., "step": ..., ...}`, to a file.

    A run resumed at step `first_step` keeps the lines up to that step of the run before it and cuts
    off the others, as well as a line that was not finished, so every step is told once. A run from
    scratch (0) starts a new file. Write the lines of a step before its checkpoint.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        kept = list(_lines_up_to(path, first_step)) if first_step else []
        write_atomically(path, *kept)
        self._file = path.open("ab", buffering=0)
        self._unwritten = bytearray()

    def write(self, event: str, step: int, **values: object) -> None:
        """One line, which survives this process from then on; numbers not finite become null.

        Raises OSError; what could not be written is kept, and comes before the next line.
        """
        self._unwritten += (_json({"event": event, "step": step, **values}) + "\n").encode()
        self.flush()

    def flush(self) -> None:
        """Writes what an earlier call could not; raises OSError."""
        while self._unwritten:
            del self._unwritten[: self._file.write(self._unwritten)]

    def close(self) -> None:
        """No more lines."""
        self._file.close()


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """The results of a finished run as one JSON object; numbers not finite become null."""
    write_atomically(path, (_json(summary, indent=2) + "\n").encode())


def _lines_up_to(path: Path, step: int) -> Iterator[bytes]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            kept = line.endswith(b"\n") and json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError, RecursionError):
            kept = False
        if kept:
            yield line


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: object) -> object:
    """`value` as strict JSON can say it, which knows neither NaN nor NumPy's numbers."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass
class _Work:
    """Images and the seconds that they took."""

    images: int = 0
    seconds: float = 0.0


class Throughput:
    """Images per second in steady state: without the first steps and without pauses.

    `clock` returns seconds; `num_warmup_steps` steps are not counted, unless there are no others.
    """

    def __init__(
        self, num_warmup_steps: int = 10, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock, self._num_to_skip = clock, num_warmup_steps
        self._warmup, self._steady = _Work(), _Work()
        self._since = clock()

    def step(self, num_images: int) -> None:
        """A step has ended; the next one begins."""
        now = self._clock()
        work = self._warmup if self._num_to_skip else self._steady
        work.images += num_images
        work.seconds += now - self._since
        self._num_to_skip = max(self._num_to_skip - 1, 0)
        self._since = now

    @contextmanager
    def pause(self) -> Iterator[None]:
        """The time spent inside (evaluation, checkpoints) does not count."""
        began = self._clock()
        yield
        self._since += self._clock() - began

    @property
    def images_per_second(self) -> float:
        """0 before the first step."""
        work = self._steady if self._steady.images else self._warmup
        return work.images / work.seconds if work.seconds else 0.0


class Terminal:
    """The lines and the progress bar of a run; silent on every rank but 0.

    The bar appears within `with terminal:`, if wanted and if standard error is a terminal.
    """

    def __init__(self, speaks: bool, progress: bool = False, total_steps: int = 0) -> None:
        self._speaks = speaks
        self._bar = _make_bar(total_steps) if speaks and progress and sys.stderr.isatty() else None
        self._refreshed = -math.inf

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, line: str) -> None:
        """A line on standard output."""
        if self._speaks:
            with self._bar_taken_down():
                print(line, flush=True)

    def warn(self, line: str) -> None:
        """A line on standard error that cannot be missed."""
        if self._speaks:
            with self._bar_taken_down():
                print(f"distnet: warning: {line}", file=sys.stderr, flush=True)

    def header(self) -> None:
        """The heads of the columns of `row`."""
        self.say("  ".join(name.rjust(width) for name, width in COLUMNS))

    def row(self, *cells: str) -> None:
        """One line of the table of epochs."""
        pairs = zip(cells, COLUMNS, strict=True)
        self.say("  ".join(cell.rjust(width) for cell, (_, width) in pairs))

    def step(self, num_done: int, loss: float) -> None:
        """Moves the progress bar, now and then."""
        now = time.perf_counter()
        if self._bar and now - self._refreshed >= REFRESH_SECONDS:
            self._bar.update(self._bar.task_ids[0], completed=num_done, loss=loss, refresh=True)
            self._refreshed = now

    @contextmanager
    def _bar_taken_down(self) -> Iterator[None]:
        """Lets a line be written where the bar stands, whichever stream it goes to."""
        bar = self._bar if self._bar and self._bar.live.is_started else None
        if bar:
            bar.stop()
        yield
        if bar:
            bar.start()


def _make_bar(total_steps: int) -> Progress:
    """No thread redraws it (it would take the core from training), and no stream is redirected."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        console=Console(stderr=True),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    bar.add_task("train", total=total_steps, loss=math.nan)
    return bar


def clock_time(seconds: float) -> str:
    """Seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
