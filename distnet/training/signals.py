"""Being asked to stop: SIGTERM, SIGINT and SIGUSR1 end a run after the step in progress.

The signal may reach all ranks (mpirun passes it on) or a single one; the trainer carries the wish
to the others in the reduction of the step, so that all stop after the same one.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class StopSignals:
    """Within it those signals are noted; after a first SIGINT, a second one ends the process.

    wanted: whether this process was asked to stop. To be entered in the main thread.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in STOPPING}
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
