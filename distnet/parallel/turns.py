"""Numbers dealt out one at a time to whichever rank asks first: what `shared_map` rests on.

A thread of rank 0 sends the next number to whoever asks. MPI moves messages only inside its calls,
and rank 0 may be busy with a task of its own: without the thread the others wait until that is
done, with MPICH 5.0 even for one-sided operations. No rank is set aside.

`mpi_communicator.MPICommunicator.turns` calls this.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

POLL_SECONDS = 0.001  # between two looks of the thread for someone who asks
ASK, ANSWER = 1, 2  # tags, since rank 0 sends both to itself


def take_turns(comm: MPI.Intracomm, num: int) -> Iterator[int]:
    """Yields 0 ... num - 1 in order, each on the rank of `comm` that asks first.

    Needs MPI's highest thread level, THREAD_MULTIPLE. All ranks have to come to the end.
    """
    comm = comm.Dup()  # where no message of others can be
    dealer = threading.Thread(target=_deal, args=(comm, num), name="dealer", daemon=True)
    if comm.rank == 0:
        dealer.start()
    while (number := comm.sendrecv(None, 0, ASK, source=0, recvtag=ANSWER)) is not None:
        yield number
    if comm.rank == 0:
        dealer.join()
    comm.Free()


def _deal(comm: MPI.Intracomm, num: int) -> None:
    """Sends the next number to each rank that asks, until all ranks have heard that none is left.

    It looks for questions instead of waiting for them: some MPI libraries wait at full speed.
    """
    from mpi4py import MPI

    numbers, status = iter(range(num)), MPI.Status()
    try:
        for _ in range(num + comm.size):
            while not comm.Iprobe(tag=ASK, status=status):
                time.sleep(POLL_SECONDS)
            comm.recv(source=status.source, tag=ASK)
            comm.send(next(numbers, None), status.source, ANSWER)
    except MPI.Exception:  # a rank is gone: without this the others would wait for an answer
        comm.Revoke()
