"""What a run says: lines for the terminal, metrics.jsonl and summary.json. Rank 0 alone writes.

The only place that writes to the terminal, apart from error lines of a command that fails.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from distnet.training.files import write_atomically

COLUMNS = (
    ("epoch", 5),
    ("step", 7),
    ("train loss", 10),
    ("test loss", 10),
    ("test accuracy", 13),
    ("images/s", 8),
    ("elapsed", 8),
)


class Metrics:
    """Appends JSON lines, `{"event": ..., "step": ..., ...}`, to a file; resumed at a step.

    Lines of an earlier run behind `first_step` are cut off, as is a line that was not finished, so
    that every step of the run is told once.
    """

    def __init__(self, path: Path, first_step: int) -> None:
        kept = list(_lines_up_to(path, first_step)) if first_step else []
        write_atomically(path, "".join(kept).encode())
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, step: int, **values: object) -> None:
        """One line, on disk when this returns to the extent that the system buffers allow."""
        self._file.write(json.dumps({"event": event, "step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lines_up_to(path: Path, step: int) -> Iterator[str]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            earlier = line.endswith("\n") and int(json.loads(line)["step"]) <= step
        except (ValueError, KeyError, TypeError):
            earlier = False
        if earlier:
            yield line


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """The results of a finished run as one JSON object."""
    write_atomically(path, (json.dumps(summary, indent=2) + "\n").encode())


class Throughput:
    """Images per second in steady state: without the first steps and without pauses.

    `clock` returns seconds; `num_warmup_steps` steps are not counted.
    """

    def __init__(
        self, num_warmup_steps: int = 10, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock, self._num_to_skip = clock, num_warmup_steps
        self._images, self._seconds, self._since = 0, 0.0, clock()

    def step(self, num_images: int) -> None:
        """A step has ended."""
        now = self._clock()
        if self._num_to_skip:
            self._num_to_skip -= 1
        else:
            self._images += num_images
            self._seconds += now - self._since
        self._since = now

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside (evaluation, checkpoints) does not count."""
        yield
        self._since = self._clock()

    @property
    def images_per_second(self) -> float:
        """0 if no step has counted yet."""
        return self._images / self._seconds if self._seconds else 0.0


class Terminal:
    """The lines and the progress bar of a run; silent on every rank but 0."""

    def __init__(self, speaks: bool, progress: bool = False, total_steps: int = 0) -> None:
        self._speaks = speaks
        stderr = RichConsole(stderr=True)
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            console=stderr,
            transient=True,
            disable=not (speaks and progress and stderr.is_terminal),
        )
        self._task = self._bar.add_task("train", total=total_steps, loss=float("nan"))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line on standard output."""
        if self._speaks:
            print(line, flush=True)

    def warn(self, line: str) -> None:
        """A line on standard error that cannot be missed."""
        if self._speaks:
            print(f"distnet: warning: {line}", file=sys.stderr, flush=True)

    def header(self) -> None:
        """The heads of the columns of `row`."""
        self.say("  ".join(name.rjust(width) for name, width in COLUMNS))

    def row(self, *cells: str) -> None:
        """One line of the table of epochs."""
        pairs = zip(cells, COLUMNS, strict=True)
        self.say("  ".join(cell.rjust(width) for cell, (_, width) in pairs))

    def step(self, num_done: int, loss: float) -> None:
        """Moves the progress bar."""
        self._bar.update(self._task, completed=num_done, loss=loss)


def clock_time(seconds: float) -> str:
    """Seconds as minutes:seconds or hours:minutes:seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
