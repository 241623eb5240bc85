"""Makes sure that one job alone writes to a directory.

The owner is named in a file `.lock`, on which it holds a lock of the kernel (`flock`): that is gone
when the owner is, however it ended. Other hosts may not see that lock, as on some network file
systems, so the owner also counts a heartbeat in the file; a job on another host watches it for a
while. Beats are counted, no clocks compared.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from distnet.parallel.communicator import Process

BEAT_SECONDS = 2.0
WATCH_BEATS = 5  # without a new one the owner, on another host, is gone


class DirectoryInUseError(OSError):
    """Another job writes there: one line with its host and process."""


class DirectoryLock:
    """The lock on `directory`, which is made if need be; `processes`: all of this job, rank 0's
    first. When that one is lost another takes its place, and need not wait for it.
    """

    def __init__(self, directory: Path, processes: Sequence[Process], me: Process) -> None:
        self.directory, self.path = directory, directory / ".lock"
        self._processes, self._me = list(processes), me
        self._file: IO[bytes] | None = None
        self._released = threading.Event()

    def acquire(self) -> None:
        """Raises DirectoryInUseError, or OSError if nothing can be written there."""
        if self._file is not None:
            return
        with contextlib.suppress(FileExistsError):
            self.directory.mkdir(parents=True)
        file = self._locked_file()
        try:
            owner = _owner(file)
            if owner is not None and self._is_alive(owner):
                raise _in_use(self.directory, owner)
        except BaseException:
            file.close()
            raise
        self._file, self._released = file, threading.Event()
        self._beat(file, 0)
        beats = threading.Thread(target=self._keep_beating, args=(file, self._released))
        beats.daemon = True
        beats.start()

    def release(self) -> None:
        """Leaves the directory to others, and removes it if nothing is in it."""
        if self._file is None:
            return
        self._released.set()
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._file.close()
        self._file = None
        with contextlib.suppress(OSError):
            self.directory.rmdir()

    def _locked_file(self) -> IO[bytes]:
        """The file, locked, if that can be had and this file system knows locks."""
        while True:
            file = self.path.open("a+b", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = _owner(file)
                file.close()
                raise _in_use(self.directory, owner) from None
            except OSError:
                return file  # no such locks here: the heartbeat has to tell
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            file.close()  # its owner has just removed it

    def _is_alive(self, owner: dict[str, Any]) -> bool:
        """Whether the owner whom the file names, and whose lock is not to be seen, still writes."""
        who = owner["host"], owner["pid"]
        if who in [(process.host, process.pid) for process in self._processes]:
            return False  # a lost rank of this very job
        if owner["host"] == self._me.host:
            return _is_running(owner["pid"]) and not _knows_locks(self.path)
        for _ in range(WATCH_BEATS):
            time.sleep(BEAT_SECONDS)
            with contextlib.suppress(OSError), self.path.open("rb") as file:
                if _owner(file) not in (owner, None):
                    return True
        return False

    def _keep_beating(self, file: IO[bytes], released: threading.Event) -> None:
        beat = 0
        while not released.wait(BEAT_SECONDS):
            beat += 1
            with contextlib.suppress(OSError, ValueError):  # a full disk; closed a moment ago
                self._beat(file, beat)

    def _beat(self, file: IO[bytes], beat: int) -> None:
        """A reader may find the file empty, and looks again."""
        content = {"host": self._me.host, "pid": self._me.pid, "beat": beat}
        file.truncate(0)
        file.write(json.dumps(content).encode() + b"\n")
        os.fsync(file.fileno())


def _in_use(directory: Path, owner: dict[str, Any] | None) -> DirectoryInUseError:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another job"
    return DirectoryInUseError(
        f"--out: found {directory} in use by {who}; wait for it, or give another --out"
    )


def _owner(file: IO[bytes]) -> dict[str, Any] | None:
    """What the file says; None if it says nothing."""
    try:
        file.seek(0)
        owner = json.loads(file.read(1000))
        return {"host": str(owner["host"]), "pid": int(owner["pid"]), "beat": int(owner["beat"])}
    except (ValueError, KeyError, TypeError):
        return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _knows_locks(path: Path) -> bool:
    """Whether locks of the kernel work in the file system of `path`."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
