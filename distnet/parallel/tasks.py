"""Independent tasks, each computed by the rank that is free first: `shared_map`.

The number of the next task is one integer in the memory of rank 0, which every rank reads and
increments in one atomic operation (one-sided MPI: fetch-and-op, MPI 4.1, section 12.3.4). No rank
is set aside to hand out work. Some MPI libraries, MPICH 5.0 on one host among them, serve the
integer only while rank 0 is inside a call of MPI: a rank may wait until rank 0's task is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TypeVar

import numpy as np

from distnet.parallel.communicator import Communicator, MPICommunicator

Item = TypeVar("Item")
Result = TypeVar("Result")


def shared_map(
    comm: Communicator, function: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """`[function(item) for item in items]` on every rank, each item computed by one of them.

    Ranks take the items in order, a rank that finishes early takes the next. Results are pickled.
    All ranks call it with equal `items`; the result is the same on any number of them if that of
    `function` depends on the item alone, so it must not call `comm`.
    """
    done = {}
    with _turns(comm) as take:
        while (index := take()) < len(items):
            done[index] = function(items[index])
        everyones = comm.allgather(done)
    results = {index: result for each in everyones for index, result in each.items()}
    return [results[index] for index in range(len(items))]


@contextmanager
def _turns(comm: Communicator) -> Iterator[Callable[[], int]]:
    """A function that returns 0, 1, 2, ..., each number on one rank alone."""
    if not isinstance(comm, MPICommunicator):
        yield count().__next__
        return
    from mpi4py import MPI

    window = MPI.Win.Allocate(8 if comm.rank == 0 else 0, 8, comm=comm._comm)
    np.asarray(window.tomemory())[:] = 0
    comm.barrier()
    one, taken = np.ones(1, np.int64), np.empty(1, np.int64)

    def take() -> int:
        window.Lock(0, MPI.LOCK_SHARED)
        window.Fetch_and_op(one, taken, 0)
        window.Unlock(0)
        return int(taken[0])

    yield take
    # Collective, so not after an exception on this rank alone: the others would be waited for.
    window.Free()
