"""Ranks of which one comes late: `stalling_program.py DIRECTORY SECONDS|stop report|end`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from distnet.parallel import Communicator, make_reducer, run_command
from distnet.parallel.watch import Watch


def command(comm: Communicator) -> int:
    directory, late, action = sys.argv[1:]
    timeout = 5 if late == "stop" else 1  # longer than a heartbeat takes to be missed
    watch = Watch(comm, Path(directory), timeout, stall_ends=action == "end")
    reducer = make_reducer(
        "exact32", comm, np.ones(4, np.float32), 1, num_contributions=comm.size, bucket_bytes=8
    )
    watch.start()
    comm.barrier()
    comm.position.begin_step(57)
    if comm.rank == 1:
        if late == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(float(late))
    reducer.start([comm.rank])
    reducer.add(comm.rank, np.ones(1))
    reducer.finish()
    watch.stop()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(command, os.environ))
