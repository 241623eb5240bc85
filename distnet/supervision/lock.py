"""The lock by which one supervisor, or the job that has survived it, owns a run directory."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from distnet.base.options import ConfigError

POLL_SECONDS = 0.1
PATIENCE_SECONDS = 3.0  # for a job whose supervisor has just been killed


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[IO[str]]:
    """Holds the lock of the directory; yields the open file, for the job to hold it as well.

    The lock is the kernel's (flock): it is gone when the last process that has the file open is, so
    the supervisor's crash frees it as soon as its job has ended. Raises ConfigError if another one
    has it, or nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".supervisor.lock").open("a+")
    except OSError as error:
        raise ConfigError(
            f"--out: found {directory}, where nothing can be written ({error.strerror})"
        ) from None
    with file:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not _taken(file):
            if time.monotonic() > give_up:
                raise ConfigError(
                    f"{directory} is in use by another supervisor or its job; wait, or end it"
                )
            time.sleep(POLL_SECONDS)
        yield file


def _taken(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
