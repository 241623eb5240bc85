"""Ranks of which one comes late: `stalling_program.py DIRECTORY HOW report|end`.

HOW is once-seen, never, stops or soon. Nothing here depends on the clock: rank 1 comes when the
others have waited for so many heartbeats of theirs, or never.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from distnet.parallel import Communicator, make_reducer, run_command
from distnet.parallel.watch import BEAT_SECONDS, HANG_BEATS, Watch

LONG_ENOUGH = {"once-seen": 4, "never": 4, "stops": HANG_BEATS + 8, "soon": 10_000}  # beats


def come_late(how: str, directory: Path) -> None:
    if how == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "never":
        threading.Event().wait()
    if how == "once-seen":
        for rank in (0, 2):
            begin = wait_until(directory / f"rank-{rank}.json", lambda heart: heart["waits"] > 0)
            end = begin + LONG_ENOUGH[how] + 3
            wait_until(directory / f"rank-{rank}.json", lambda heart, end=end: heart["beat"] > end)


def wait_until(path: Path, is_so) -> int:
    """Returns the number of the first heartbeat of which `is_so`."""
    while not is_so(heart := json.loads(path.read_text())):
        time.sleep(BEAT_SECONDS / 5)
    return heart["beat"]


def command(comm: Communicator) -> int:
    directory, how, action = sys.argv[1:]
    timeout = LONG_ENOUGH[how] * BEAT_SECONDS
    watch = Watch(comm, Path(directory), timeout, stall_ends=action == "end")
    gradients = np.ones(4, np.float32)
    reducer = make_reducer(
        "float32", comm, gradients, 1, num_contributions=comm.size, bucket_bytes=8
    )
    watch.start()
    comm.barrier()
    comm.position.begin_step(57)
    if comm.rank == 1:
        come_late(how, Path(directory))
    reducer.start([comm.rank])
    reducer.add(comm.rank, np.ones(1))
    reducer.finish()
    watch.stop()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(command, os.environ))
