"""What training does when ranks are lost: go on from the newest state that a survivor has.

A step needs every rank, and changes the state only after its sums are complete. So when a rank is
lost, the survivors stand after the same step, or some are one step ahead of the others. The most
advanced one is adopted as it is: nothing is rescaled, nothing skipped, only the step in flight is
computed again. As the result of a step does not depend on the number of ranks, the run ends with
the bits of an undisturbed one. `train` calls this; without ULFM no RankLost is ever raised.
"""

from __future__ import annotations

from collections.abc import Callable

from distnet.parallel.communicator import Communicator, Process
from distnet.parallel.errors import RankLost
from distnet.training.run import Run


def survive(comm: Communicator, start: Callable[[], Run]) -> int:
    """Starts a run on all ranks and trains, through losses, to its end; returns its exit code.

    Losses may come at any moment, during recovery too: then it begins again with fewer ranks.
    """
    run: Run | None = None
    lost: list[Process] = []
    is_whole = True
    while True:
        try:
            if not is_whole:
                lost += comm.repair()
                run = rejoin(comm, run, lost)
                is_whole, lost = True, []
            if run is None:
                run = start()
            code = run()
            comm.barrier()  # nobody leaves before all have got here
            run.close()
            return code
        except RankLost:
            is_whole = False


def rejoin(comm: Communicator, run: Run | None, lost: list[Process]) -> Run | None:
    """All survivors at the same state, or None if one of them has none: then all start anew."""
    num_done = comm.allgather(None if run is None else run.num_done)
    if run is None:
        return None
    if None in num_done:
        run.close()
        return None
    run.go_on_from(num_done.index(max(num_done)), lost)
    return run
