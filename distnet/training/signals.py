"""Being asked to stop: SIGTERM, SIGINT, SIGHUP and SIGUSR1 end a run after the step in progress.

The signal may reach all ranks (mpirun passes it on) or a single one; the trainer carries the wish
to the others in the reduction of the step, so that all stop after the same one. SIGHUP comes when
the terminal is closed; where it is ignored, as under `nohup`, it stays so.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StopSignals:
    """Within it those signals are noted; after a first SIGINT, a second one ends the process.

    wanted: whether this process was asked to stop. To be entered in the main thread.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        if number == signal.SIGINT:
            # Not by a handler of ours: Python would not run it while MPI waits.
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _is_to_be_ignored(number: signal.Signals) -> bool:
    """SIGHUP alone: shells let programs in the background begin with SIGINT ignored, too."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
