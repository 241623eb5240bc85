"""The terminal in front of a program's user, also where mpirun stands between the two.

A launcher gives its ranks pipes and passes on what they write. But it is a process of this user on
the same host, and its own standard error may be a terminal: so the launcher is looked for among the
parents of this process (through /proc, on Linux), and its terminal is written to directly. Lines
go there too then, as two ways to one terminal would mix them up.

In a Jupyter notebook the output of the cell takes its place, where a line can be written over again
as well (messages `display_data` and `update_display_data` of Jupyter's protocol).

All that is ever sent to a terminal is text, a carriage return, and "erase to the end of the line"
(ECMA-48, EL). No mode of it is changed, so there is nothing to be put back, however the program
ends.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

LAUNCHERS = {"mpirun", "mpiexec", "mpiexec.hydra", "mpiexec.gforker", "prterun", "orterun"}
ERASE = "\r\x1b[K"
DEFAULT_WIDTH, CELL_WIDTH = 80, 96
PROC = Path("/proc")


@dataclass
class Screen:
    """A terminal with a line at its bottom that is drawn over again.

    stream: by which it is written to. owner: the process that the shell has started there.
    streams: those of the standard streams whose lines have to be written here. keeps: whether the
    line stays when the program goes on.
    """

    stream: TextIO
    owner: int
    streams: tuple[TextIO, ...] = ()
    keeps: ClassVar[bool] = False

    @classmethod
    def find(cls) -> Screen | None:
        """The terminal of standard error, of this process or of its launcher; None without one.

        In a notebook it is the output of the cell that runs.
        """
        if sys.stderr.isatty():
            return cls(sys.stderr, os.getpid())
        if _is_in_notebook():
            return Cell(sys.stderr, os.getpid())
        for launcher in _launchers():
            with contextlib.suppress(OSError):
                return _of_launcher(launcher)
        return None

    def draw(self, text: str) -> None:
        """Shows what fits of `text` in the line; raises OSError.

        The last column stays empty, as some terminals begin a new line after it. And the cursor
        goes back to the first one, so that a ^C, which terminals echo where it stands, does not
        break the line in two.
        """
        if self._is_in_front():
            self._send(f"{ERASE}{text[: self.width - 1]}\r")

    def erase(self) -> None:
        """Leaves the line empty, with the cursor at its beginning; raises OSError."""
        if self._is_in_front():
            self._send(ERASE)

    @property
    def width(self) -> int:
        """Columns, as they are now."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or DEFAULT_WIDTH
        except (OSError, ValueError):
            return DEFAULT_WIDTH

    def shows(self, text: str) -> bool:
        """Whether it has these characters, as far as can be known."""
        try:
            text.encode(self.stream.encoding or "ascii")
        except UnicodeEncodeError:
            return False
        return True

    def _send(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _is_in_front(self) -> bool:
        """Whether the shell has not put the program into the background, where it has to be still.

        Fields 5 and 8 of /proc/PID/stat: the group of the process, and the one in front. Without
        them, as on macOS, the owner is this process, which may ask the terminal.
        """
        fields = _stat(self.owner)
        if len(fields) >= 6:
            return int(fields[5]) in (-1, int(fields[2]))
        try:
            return os.tcgetpgrp(self.stream.fileno()) == os.getpgrp()
        except (OSError, ValueError):
            return True


class Cell(Screen):
    """The output of a notebook's cell: a line of its own, which stays where lines come after it."""

    keeps = True
    _handle: Any = None

    def draw(self, text: str) -> None:
        """Shows `text` in the place of what was there."""
        content = {"text/plain": text}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def erase(self) -> None:
        """Nothing: lines do not come in its way."""

    @property
    def width(self) -> int:
        """Columns that fit most notebooks."""
        return CELL_WIDTH


def _is_in_notebook() -> bool:
    """Whether a Jupyter kernel runs this program; IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def _of_launcher(launcher: int) -> Screen | None:
    """The terminal of a launcher's standard error; raises OSError if it cannot be looked at."""
    file = os.open(PROC / str(launcher) / "fd" / "2", os.O_WRONLY | os.O_NOCTTY)
    if not os.isatty(file):
        os.close(file)
        return None
    stream = open(file, "w", encoding=sys.stderr.encoding, errors="backslashreplace")  # noqa: SIM115
    output = os.stat(PROC / str(launcher) / "fd" / "1")
    is_same = output.st_rdev == os.fstat(file).st_rdev
    return Screen(stream, launcher, (sys.stdout, sys.stderr) if is_same else (sys.stderr,))


def _launchers() -> Iterator[int]:
    """The launchers among the parents of this process, the nearest first."""
    process = os.getppid()
    while process > 1:
        try:
            name = (PROC / str(process) / "comm").read_text().strip()
            parent = int(_stat(process)[1])
        except (OSError, IndexError):
            return
        if name in LAUNCHERS:
            yield process
        process = parent


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, which is the state; see proc(5)."""
    try:
        return (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
