"""The processes of a job: how they start, and how all that is left of them on this host ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from distnet.base.options import ConfigError

MARK = "DISTNET_SUPERVISED"  # environment variable by which all processes of a job are found
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 3.0  # between asking a process to end and killing it
PR_SET_PDEATHSIG = 1

Launcher = subprocess.Popen[bytes]


def start(command: Sequence[str], environ: Mapping[str, str], mark: str, held: IO[str]) -> Launcher:
    """The command in the background, holding the file `held`; raises ConfigError if there is none.

    mark: goes into the environment of all its processes.
    """
    try:
        return subprocess.Popen(
            command,
            env={**environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            pass_fds=[held.fileno()],
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(f"{command[0]} cannot be started ({error.strerror})") from None


def end(launcher: Launcher, mark: str) -> None:
    """Ends all that is left of a job on this host: the launcher politely, the others by force."""
    if launcher.poll() is None:
        launcher.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            launcher.wait(PATIENCE_SECONDS)
    if launcher.poll() is None:
        launcher.kill()
        launcher.wait()
    give_up = time.monotonic() + PATIENCE_SECONDS
    while (left := _marked(mark)) and time.monotonic() < give_up:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _die_with_parent() -> None:
    """In the job, before it starts: killed when the supervisor is. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _marked(mark: str) -> list[int]:
    """The processes that have this mark in their environment."""
    wanted, pids = f"{MARK}={mark}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # ended, or another user's
            if wanted in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids
