"""Standard output and standard error, whose loss costs lines and never a program's result.

A terminal may be closed, the reader of a pipe gone, the disk under a log full. What a program
computes is worth more than what it says about it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from typing import TextIO


def secure_streams() -> None:
    """Gives a program both streams, able to show any character; to be called at its start.

    A closed one would be the number of the first file that is opened, and get what libraries
    complain about; it leads to nowhere instead. What an encoding lacks is shown by its code.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has from the start


def write_now(stream: TextIO, text: str) -> OSError | None:
    """Writes `text` at once, or returns why it could not; the stream is then silent for good."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        silence(stream)
        return error
    return None


def silence(stream: TextIO) -> None:
    """Leads a stream that fails to nowhere: else Python would fail once more when it ends."""
    with contextlib.suppress(OSError, ValueError):  # one without a number, as in a notebook
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def warn(text: str) -> None:
    """A UserWarning at the line of a program that has called distnet."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("distnet."):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
