"""Ranks that go on without those that fail: `surviving_program.py WHAT RANK...`, on these ranks."""

from __future__ import annotations

import os
import signal
import sys
import threading
from itertools import cycle

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


def broadcast_until_lost(comm: Communicator, ranks: list[int]) -> None:
    """Broadcasts of all in turn, in which `ranks` are killed; of a size that showed a trap."""
    if comm.rank in ranks:
        threading.Timer(0.1, fail, ["kill"]).start()
    array = np.zeros(10_000, np.float32)
    for root in cycle(range(comm.size)):
        comm.broadcast(array, root)


def broadcast_with_mistake(comm: Communicator, ranks: list[int]) -> None:
    """`ranks` want to hear from one that there is not: an error of MPI, though nobody is gone."""
    root = next(rank for rank in range(comm.size) if rank not in ranks)
    comm.broadcast(np.zeros(10), comm.size if comm.rank in ranks else root)


def command(comm: Communicator) -> int:
    what, ranks = sys.argv[1], list(map(int, sys.argv[2:]))
    me, number, lost, is_whole = comm.rank, 0, [], True
    while number < ROUNDS:
        try:
            if not is_whole:
                lost += comm.repair()
                number = max(comm.allgather(number))
                comm.confirm()
                is_whole = True
            arrays = [np.ones(50_000, np.int64) for _ in range(3)]
            requests = [comm.iallreduce(array) for array in arrays]
            if number == HARM and what == "broadcast" and not lost:
                broadcast_until_lost(comm, ranks)
            elif number == HARM and what == "mistake" and not lost:
                broadcast_with_mistake(comm, ranks)
            elif number == HARM and me in ranks:
                fail(what)
            for request in requests:
                request.wait()
            assert all((array == comm.size).all() for array in arrays)
            number = min(comm.allgather(number)) + 1
        except RankLost:
            is_whole = False
    names = sorted(process.rank for process in lost)
    print(f"rank {me} is {comm.rank} of {comm.size} on {comm.node.size}, lost {names}", flush=True)
    comm.barrier()
    return 0


if __name__ == "__main__":
    sys.exit(run_command(command, os.environ))
