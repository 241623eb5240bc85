"""Watches over the ranks from a thread of each: who keeps the others waiting, who has stopped.

Every rank writes a heartbeat file a few times a second, whatever its main thread does, and reads
those of the others. It is a side channel on purpose: MPI moves nothing while the main thread waits
or computes. From the files two things can be told:

- *Stall*: a rank has waited longer than `stall_timeout` in a collective call. It names the ranks
  that have not begun that call and shows its stacks; it ends the job if told to.
- *Hang*: the heartbeat of a process on this host has stopped (SIGSTOP, a dead disk). If losses can
  be survived it is killed, which the others notice.

Time is counted in beats of this rank, not by the clock: where all processes stood still, as on a
suspended or a very busy machine, nobody is suspected.

`training.run` starts it. File `rank-N.json`, N as started: {"rank", "host", "pid", "beat",
"position": [repairs, step, calls], "waits": seconds}.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distnet.base.output import write_now
from distnet.parallel.communicator import Communicator, Process
from distnet.parallel.errors import name_ranks

BEAT_SECONDS = 0.25
HANG_BEATS = 12  # beats of this rank without one of another process: 3 s
STALLED = 76  # exit code of a job that a stalled rank has ended


@dataclass
class Pulse:
    """The last beat seen of a process, and how many of ours have passed since it was new."""

    beat: int = -1
    age: int = 0

    def see(self, beat: int) -> None:
        self.age = self.age + 1 if beat == self.beat else 0
        self.beat = beat


class Watch:
    """The thread of one rank; `start` begins, the end of the process ends it.

    stall_timeout: seconds, 0 for never; stall_ends: whether a stall ends the job, with exit code 76
    (of `mpirun` 9 at times, see `abort`).
    """

    def __init__(
        self, comm: Communicator, directory: Path, stall_timeout: float, stall_ends: bool
    ) -> None:
        self._comm, self._directory = comm, directory
        self._stall_beats, self._ends = math.ceil(stall_timeout / BEAT_SECONDS), stall_ends
        self._me = comm.processes[comm.rank]
        self._beat = 0
        self._pulses: dict[Process, Pulse] = {}
        self._since, self._waited = 0.0, 0  # when the wait at hand began; beats in it
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Raises OSError if heartbeats cannot be written."""
        self._write()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, if it was started, and removes this rank's heartbeat."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        self._path(self._me.rank).unlink(missing_ok=True)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            try:
                self._write()
            except OSError:
                continue  # a full disk: nobody is suspected by a rank that cannot beat
            self._feel_pulses()
            if self._comm.survives_losses:
                self._kill_hung()
            if self._stall_beats and self._count_waiting() == self._stall_beats:
                self._report_stall()

    # Heartbeats.

    def _path(self, rank: int) -> Path:
        return self._directory / f"rank-{rank}.json"

    def _write(self) -> None:
        """Not `fsync`ed, and renamed so that readers find it whole."""
        position = self._comm.position
        self._beat += 1
        content = {
            "rank": self._me.rank,
            "host": self._me.host,
            "pid": self._me.pid,
            "beat": self._beat,
            "position": position.reached,
            "waits": self._waits(),
        }
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._path(self._me.rank).with_suffix(".new")
        temporary.write_text(json.dumps(content) + "\n")
        temporary.replace(self._path(self._me.rank))

    def _read(self, process: Process) -> dict[str, Any] | None:
        """The last heartbeat of a process; None before its first one."""
        try:
            content = json.loads(self._path(process.rank).read_text())
        except (OSError, ValueError):
            return None
        same = isinstance(content, dict) and content.get("pid") == process.pid
        return content if same else None

    def _waits(self) -> float:
        position = self._comm.position
        return round(time.monotonic() - position.since, 2) if position.waits_for else 0.0

    def _feel_pulses(self) -> None:
        for process in self._comm.processes:
            heart = self._read(process)
            if heart is not None:
                self._pulses.setdefault(process, Pulse()).see(heart["beat"])

    def _is_silent(self, process: Process) -> bool:
        """Whether its heartbeat has stopped; one that never began does not count."""
        return process in self._pulses and self._pulses[process].age >= HANG_BEATS

    # Hangs.

    def _kill_hung(self) -> None:
        """The first process of this host whose heart beats removes those that are silent."""
        peers = [process for process in self._comm.processes if process.host == self._me.host]
        hung = [process for process in peers if self._is_silent(process)]
        beating = [process for process in peers if process not in hung]
        if beating[:1] == [self._me]:
            for process in hung:
                self._kill(process)

    def _kill(self, process: Process) -> None:
        del self._pulses[process]
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it is gone already, and will be noticed
        _show(
            f"distnet: warning: {process} has hung for {HANG_BEATS * BEAT_SECONDS:g} s "
            "and is removed\n"
        )

    # Stalls.

    def _count_waiting(self) -> int:
        """How many beats this rank has spent in the wait at hand, this one included."""
        since = self._comm.position.since
        same = self._comm.position.waits_for and since == self._since
        self._since, self._waited = since, self._waited + 1 if same else 0
        return self._waited

    def _report_stall(self) -> None:
        position = self._comm.position
        late, silent = self._missing()
        who = name_ranks(late) if late else "no rank"
        hint = f"; no heartbeat from {name_ranks(silent)}" if silent else ""
        purpose = f" ({position.purpose})" if position.purpose else ""
        _show(
            f"distnet: warning: {self._me} has waited {self._waits():g} s in call "
            f"{position.waits_for}{purpose} of step {position.step}, which {who} has yet to begin"
            f"{hint}; stacks of {name_ranks([self._me.rank])}:\n{_stacks()}"
        )
        if self._ends:
            # The other ranks shall show theirs; and one rank alone shall abort.
            time.sleep(BEAT_SECONDS * (2 + 4 * min(self._comm.rank, 10)))
            self._comm.abort(STALLED)

    def _missing(self) -> tuple[list[int], list[int]]:
        """The ranks that have not begun the call this one waits in; those without a heartbeat."""
        position = self._comm.position
        here = [position.num_repairs, position.step, position.waits_for]
        others = [process for process in self._comm.processes if process != self._me]
        hearts = {process.rank: self._read(process) for process in others}
        late = [rank for rank, heart in hearts.items() if heart and heart["position"] < here]
        silent = [p.rank for p in others if self._is_silent(p) or hearts[p.rank] is None]
        return late, silent


def _stacks() -> str:
    """The stacks of all threads, as one text: ranks that write at once stay apart."""
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")


def _show(text: str) -> None:
    write_now(sys.stderr, text)
