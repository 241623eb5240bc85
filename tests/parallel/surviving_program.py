"""Ranks that go on without those that fail: `surviving_program.py WHAT RANK...`, on these ranks."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np

from distnet.parallel import Communicator, RankLost, run_command

ROUNDS, HARM = 40, 20  # rounds of reductions; where the ranks fail


def fail(what: str) -> None:
    if what == "exception":
        raise ZeroDivisionError("this cannot be computed")
    if what == "exit":
        sys.exit(3)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)


def command(comm: Communicator) -> int:
    what, ranks = sys.argv[1], list(map(int, sys.argv[2:]))
    me, number, lost = comm.rank, 0, []
    while number < ROUNDS:
        try:
            arrays = [np.ones(50_000, np.int64) for _ in range(3)]
            requests = [comm.iallreduce(array) for array in arrays]
            if number == HARM and me in ranks:
                fail(what)
            for request in requests:
                request.wait()
            assert all((array == comm.size).all() for array in arrays)
            number = min(comm.allgather(number)) + 1
        except RankLost:
            lost += comm.repair()
            number = max(comm.allgather(number))
            comm.confirm()
    names = sorted(process.rank for process in lost)
    print(f"rank {me} is {comm.rank} of {comm.size} on {comm.node.size}, lost {names}", flush=True)
    comm.barrier()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(command, os.environ))
