"""Lines and a status line on the terminal. Rank 0 alone writes.

The only place that writes to the terminal, apart from error lines of a command that fails. A
terminal that is gone is no reason to end a run: it goes on without lines.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self, TextIO

from distnet.base.output import silence, write_now
from distnet.base.screen import Screen
from distnet.parallel.communicator import Communicator


class Terminal:
    """The lines of a run, and under them one that shows how far it is; silent on ranks but 0.

    The status line is there within `with terminal:`, if `progress` and if there is a terminal, be
    it behind mpirun. quiet: warnings alone. When rank 0 is lost, the rank that takes its number
    speaks from then on, without a status line.
    """

    def __init__(self, comm: Communicator, progress: bool = False, quiet: bool = False) -> None:
        self._comm, self._quiet = comm, quiet
        wanted = self._speaks and progress and not quiet
        self.screen = Screen.find() if wanted else None
        self._status = ""
        self._is_open = False

    @property
    def _speaks(self) -> bool:
        return self._comm.rank == 0

    def __enter__(self) -> Self:
        self._is_open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.show("")
        self._is_open = False

    def say(self, line: str) -> None:
        """A line on standard output; if that cannot be written, a warning, once."""
        if self._quiet:
            return
        failure = self._write(sys.stdout, line)
        if failure is not None:
            self.warn(
                f"standard output cannot be written any more ({failure.strerror}); the run goes on"
            )

    def warn(self, line: str) -> None:
        """A line on standard error that cannot be missed."""
        self._write(sys.stderr, f"distnet: warning: {line}")

    def show(self, status: str) -> None:
        """The status line becomes this text, or "" none."""
        if self._is_open and status != self._status:
            self._status = status
            self._draw(status)

    def _write(self, stream: TextIO, line: str) -> OSError | None:
        """Above the status line, whichever stream it goes to."""
        if not self._speaks:
            return None
        if self._status:
            self._draw("")
        if self.screen is not None and stream in self.screen.streams:
            stream = self.screen.stream
        failure = write_now(stream, line + "\n")
        if self._status:
            self._draw(self._status)
        return failure

    def _draw(self, status: str) -> None:
        """On a terminal that is gone there is no status line any more."""
        if self.screen is None:
            return
        try:
            self.screen.draw(status) if status else self.screen.erase()
        except OSError:
            silence(self.screen.stream)
            self.screen = None
