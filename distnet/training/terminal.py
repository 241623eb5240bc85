"""Lines and the progress bar on the terminal. Rank 0 alone writes.

The only place that writes to the terminal, apart from error lines of a command that fails. A
terminal that is gone is no reason to end a run: it goes on without lines.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from distnet.base.output import silence, write_now
from distnet.parallel.communicator import Communicator

if TYPE_CHECKING:
    from rich.progress import Progress

REFRESH_SECONDS = 0.25


class Terminal:
    """The lines and the progress bar of a run; silent on every rank but 0.

    The bar appears within `with terminal:`, if wanted and if standard error is a terminal. When
    rank 0 is lost, the rank that takes its number speaks from then on, without a bar.
    """

    def __init__(self, comm: Communicator, progress: bool = False, total_steps: int = 0) -> None:
        self._comm = comm
        has_bar = self._speaks and progress and sys.stderr.isatty()
        self._bar = _make_bar(total_steps) if has_bar else None
        self._refreshed = -math.inf

    @property
    def _speaks(self) -> bool:
        return self._comm.rank == 0

    def __enter__(self) -> Self:
        self._draw(lambda bar: bar.start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._draw(lambda bar: bar.stop())

    def say(self, line: str) -> None:
        """A line on standard output; if that cannot be written, a warning, once."""
        failure = self._write(sys.stdout, line)
        if failure is not None:
            self.warn(
                f"standard output cannot be written any more ({failure.strerror}); the run goes on"
            )

    def warn(self, line: str) -> None:
        """A line on standard error that cannot be missed."""
        self._write(sys.stderr, f"distnet: warning: {line}")

    def step(self, num_done: int, loss: float) -> None:
        """Moves the progress bar, now and then."""
        now = time.perf_counter()
        if self._bar and now - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = now
            self._draw(
                lambda bar: bar.update(bar.task_ids[0], completed=num_done, loss=loss, refresh=True)
            )

    def _write(self, stream: TextIO, line: str) -> OSError | None:
        """Where the bar stands, whichever stream it goes to."""
        if not self._speaks:
            return None
        is_shown = self._bar is not None and self._bar.live.is_started
        if is_shown:
            self._draw(lambda bar: bar.stop())
        failure = write_now(stream, line + "\n")
        if is_shown:
            self._draw(lambda bar: bar.start())
        return failure

    def _draw(self, change: Callable[[Progress], None]) -> None:
        """Changes the bar, if there is one; on a terminal that is gone there is none any more."""
        try:
            if self._bar:
                change(self._bar)
        except OSError:
            self._bar = None
            silence(sys.stderr)


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
