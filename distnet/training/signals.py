"""Being asked to stop: SIGTERM, SIGINT, SIGHUP and SIGUSR1 end a run after the step in progress.

The signal may reach all ranks (mpirun passes it on) or a single one; the trainer carries the wish
to the others in the reduction of the step, so that all stop after the same one. SIGHUP comes when
the terminal is closed; where it is ignored, as under `nohup`, it stays so.

Who presses Ctrl-C again, a second or more after the first time, does not want to wait. Sooner it
says nothing new: a terminal sends one Ctrl-C to every process, and mpirun passes it on once more.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
INTERRUPTED = 130  # 128 + SIGINT, as shells count
PATIENCE_SECONDS = 1.0


class StopSignals:
    """Within it those signals are noted; a second SIGINT, `patience` after a first, is the end.

    wanted: whether this process was asked to stop. To be entered in the main thread.
    """

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.wanted = False
        self._patience = patience
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python runs no handler while the main thread waits inside MPI; but it writes the number
        # of each signal into this pipe at once, and another thread can read it.
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._wakeup_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        caught = [number for number in STOPPING if not _is_to_be_ignored(number)]
        self._before = {number: signal.signal(number, self._note) for number in caught}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._write_end)  # by which the thread ends
        self._thread.join()
        os.close(self._read_end)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True

    def _listen(self) -> None:
        """The second thread: what may not wait for the first."""
        until = math.inf  # when a Ctrl-C says something new
        while numbers := os.read(self._read_end, 64):
            if signal.SIGINT in numbers:
                now = time.monotonic()
                if now >= until:
                    with contextlib.suppress(OSError):
                        os.write(2, b"distnet: interrupted again: ended without a checkpoint\n")
                    os._exit(INTERRUPTED)
                until = min(until, now + self._patience)


def _is_to_be_ignored(number: int) -> bool:
    """SIGHUP alone: shells let programs in the background begin with SIGINT ignored, too."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
