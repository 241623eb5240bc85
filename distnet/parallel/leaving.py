"""The end of a program: who has come to it waits for the other ranks, and says so if that is long.

A collective call that only some ranks make waits for ever; `fit` under `if comm.rank == 0`, say.
Those that make it cannot tell, they wait inside MPI. But the others have come to the end, and
here they wait with open eyes.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from distnet.base.output import write_now
from distnet.parallel.errors import name_ranks
from distnet.parallel.patience import naps

if TYPE_CHECKING:
    from mpi4py import MPI

PATIENCE_SECONDS = 30.0
NUM_SPEAKERS = 4  # ranks that speak if rank 0 is one of those that are missing
HERE, ALL_HERE = 1, 2  # tags


def wait_for_all(comm: MPI.Intracomm) -> None:
    """Returns when every rank of `comm` has called it: a barrier that says who is missing.

    Rank 0 hears from all others and tells them. No message of others may be on its way.
    """
    patience = PATIENCE_SECONDS * (1 + comm.rank)  # one rank speaks, if possible rank 0
    if comm.rank == 0:
        others = range(1, comm.size)
        _wait(comm, [comm.Irecv(bytearray(0), rank, HERE) for rank in others], patience)
        for request in [comm.Isend(b"", rank, ALL_HERE) for rank in others]:
            request.Wait()
    else:
        comm.Isend(b"", 0, HERE).Wait()
        _wait(comm, [comm.Irecv(bytearray(0), 0, ALL_HERE)], patience)


def _wait(comm: MPI.Intracomm, requests: list[MPI.Request], patience: float) -> None:
    began, has_spoken = time.monotonic(), comm.rank >= NUM_SPEAKERS
    for _ in naps():
        if all([request.Test() for request in requests]):
            return
        if not has_spoken and time.monotonic() - began > patience:
            has_spoken = True
            missing = [rank for rank, request in enumerate(requests, 1) if not request.Test()]
            who = name_ranks(missing) if comm.rank == 0 else "other ranks"
            write_now(
                sys.stderr,
                f"distnet: warning: rank {comm.rank} has come to the end of the program and has "
                f"waited {patience:g} s for {who}; `fit`, and all else that is given the "
                "communicator, is to be called on every rank\n",
            )
