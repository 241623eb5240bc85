"""Runs programs in a terminal and keeps what is to be seen on its screen: used by the tests alone.

The terminal is a pseudo-terminal of a given size; pyte takes the part of the screen.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import launching
import pyte


@dataclass
class Seen:
    """What was on the screen: `frames`, the lines of each moment; how the program ended.

    raw: all bytes; cursor: row and column at the end; hidden: whether it cannot be seen then.
    """

    code: int = -1
    frames: list[list[str]] = field(default_factory=list)
    raw: bytes = b""
    cursor: tuple[int, int] = (0, 0)
    hidden: bool = False
    modes: list[object] = field(default_factory=list)

    @property
    def last(self) -> list[str]:
        """The lines at the end, without empty ones below them."""
        lines = list(self.frames[-1])
        while lines and not lines[-1]:
            lines.pop()
        return lines

    def status_lines(self) -> list[str]:
        """Every text that the status line had; frames may show one that is half arrived."""
        drawn = re.findall(r"\r\x1b\[K([^\r\n\x1b]+)\r(?!\n)", self.raw.decode())
        return [line for line in drawn if "/" in line]


def watch(
    command: Sequence[str],
    *,
    size: tuple[int, int] = (24, 100),
    env: Mapping[str, str] | None = None,
    when: Callable[[list[str]], bool] = lambda lines: False,
    keys: bytes = b"",
    cwd: Path = launching.ROOT,
) -> Seen:
    """Runs `command` in a terminal of `size`, rows and columns, to its end.

    As soon as `when` holds of what is on the screen, `keys` are pressed, once.
    """
    rows, columns = size
    settings = {**os.environ, **launching.SETTINGS, "TERM": "xterm", **(env or {})}
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.chdir(cwd)
        os.execvpe(command[0], list(command), settings)
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    seen, pressed = Seen(), False
    give_up = time.monotonic() + launching.HUNG_SECONDS
    try:
        while (piece := _read(master, give_up)) is not None:
            seen.raw += piece
            stream.feed(piece)
            seen.frames.append([line.rstrip() for line in screen.display])
            if not pressed and when(seen.frames[-1]):
                pressed = True
                os.write(master, keys)
    except TimeoutError as error:
        os.kill(pid, signal.SIGKILL)
        error.add_note(f"keys were pressed: {pressed}; the screen: {seen.frames[-1:]}")
        raise
    seen.cursor, seen.hidden = (screen.cursor.y, screen.cursor.x), screen.cursor.hidden
    seen.modes = sorted(screen.mode)
    seen.code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(master)
    return seen


def _read(master: int, give_up: float) -> bytes | None:
    """What comes next; None when the program has closed the terminal; TimeoutError."""
    left = give_up - time.monotonic()
    if left <= 0 or not select.select([master], [], [], left)[0]:
        raise TimeoutError(f"the program has not ended within {launching.HUNG_SECONDS:g} s")
    try:
        return os.read(master, 1 << 16) or None
    except OSError:  # Linux: nobody has it open any more
        return None
