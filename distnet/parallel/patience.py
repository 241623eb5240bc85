"""Waiting that leaves the core to others, for ranks that share cores.

MPI waits awake: it looks again and again, and between two looks lets others have the core, if it is
told that there may be others. Where 64 ranks share two cores those that wait take turns with those
that work, and a gathering of small values costs each of them 5 ms of a core. Here who waits sleeps,
and it costs a tenth of that. A rank that works while the others wait has the core to itself.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI

SHORTEST_NAP, LONGEST_NAP = 0.00005, 0.02  # seconds
VALUE, VALUES = 32766, 32767  # tags, the last that every MPI has: no other message has them


def naps() -> Iterator[None]:
    """Yields for ever, at once and then after naps, each half as long as all before together.

    So nobody oversleeps by more than half of what there was to wait for, and ranks that wait for
    each other in turn do not make each other's naps longer and longer.
    """
    began, nap = time.monotonic(), 0.0
    while True:
        yield
        time.sleep(nap)
        waited = time.monotonic() - began
        nap = min(SHORTEST_NAP + waited / 2, LONGEST_NAP)


def num_cores() -> int:
    """The cores that this process may use, as far as the system says."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gather_patiently(comm: MPI.Intracomm, value: Any) -> list[Any]:
    """`comm.allgather(value)`, in which whoever waits sleeps: rank 0 hears all and tells all."""
    from mpi4py import MPI

    if comm.rank:
        comm.Send(pickle.dumps(value), 0, VALUE)
        return pickle.loads(_receive(comm, 0, VALUES, MPI.Status()))
    values, status = [value] * comm.size, MPI.Status()
    for _ in range(comm.size - 1):
        content = _receive(comm, MPI.ANY_SOURCE, VALUE, status)
        values[status.source] = pickle.loads(content)
    content = pickle.dumps(values)
    for rank in range(1, comm.size):
        comm.Send(content, rank, VALUES)
    return values


def _receive(comm: MPI.Intracomm, rank: int, tag: int, status: MPI.Status) -> bytes:
    """The next message with that tag; `status` tells whose it is."""
    for _ in naps():
        if comm.Iprobe(rank, tag, status):
            break
    content = bytearray(status.Get_count())
    comm.Recv(content, status.source, tag)
    return bytes(content)
