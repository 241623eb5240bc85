"""What training does when ranks are lost: go on from the newest state that a survivor has.

A step needs every rank, and changes the state only after its sums are complete. So when a rank is
lost, the survivors stand after the same step, or some are one step ahead of the others. The most
advanced one is adopted as it is: nothing is rescaled, nothing skipped, only the step in flight is
computed again. As the result of a step does not depend on the number of ranks, the job ends with
the bits of an undisturbed one. Where the optimizer's vectors are shared out nobody has all of them:
see `sharding`. `train` calls this; without ULFM no RankLost is ever raised.
"""

from __future__ import annotations

from collections.abc import Callable

from distnet.parallel.communicator import Communicator, Process
from distnet.parallel.errors import RankLost
from distnet.training.job import Job


def survive(comm: Communicator, start: Callable[[], Job]) -> int:
    """Starts a job on all ranks and trains, through losses, to its end; returns its exit code.

    Losses may come at any moment, during recovery too: then it begins again with fewer ranks.
    """
    job: Job | None = None
    lost: list[Process] = []
    is_whole = True
    while True:
        try:
            if not is_whole:
                lost += comm.repair()
                job = rejoin(comm, job, lost)
                is_whole, lost = True, []
            if job is None:
                job = start()
            code = job()
            comm.barrier()  # nobody leaves before all have got here
            job.close()
            return code
        except RankLost:
            is_whole = False


def rejoin(comm: Communicator, job: Job | None, lost: list[Process]) -> Job | None:
    """All survivors at the same state, or None if one of them has none: then all start anew."""
    num_done = comm.allgather(None if job is None else job.num_done)
    if job is None:
        return None
    if None in num_done:
        job.close()
        return None
    job.go_on_from(num_done.index(max(num_done)), lost)
    return job
