"""A function becomes a program of any number of ranks: `run_command`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from distnet.base.command import begin_command
from distnet.base.output import secure_streams
from distnet.parallel.agreement import AgreedExit
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import LaunchError, RankLost
from distnet.parallel.failure import fail_together, show
from distnet.parallel.launcher import connect
from distnet.parallel.recovery import die, leave


def run_command(function: Callable[[Communicator], int | None], environ: Mapping[str, str]) -> int:
    """Calls `function(comm)` on every rank that the launcher has started; returns its exit code.

        sys.exit(run_command(main, os.environ))

    Without a launcher it is called once, with the communicator of a process on its own. An
    exception on any rank ends all of them, see `failure`. The exit code is what `function` returns
    (None counts as 0), or 2, after one line, if these processes cannot be ranks of one job.
    """
    secure_streams()
    try:
        comm = connect(environ)
    except LaunchError as error:
        if error.speaks:
            show(f"distnet: error: {error}\n")
        return 2
    return run_ranks(function, comm)


def run_ranks(function: Callable[[Communicator], int | None], comm: Communicator) -> int:
    """As `run_command`, for a program that has connected itself."""
    begin_command()
    try:
        with fail_together(comm):
            code = function(comm) or 0
            comm.close()
    except AgreedExit as exit:
        _leave_unless_finalized(comm, exit.code if isinstance(exit.code, int) else 0)
        raise
    _leave_unless_finalized(comm, code)
    return code


def _leave_unless_finalized(comm: Communicator, code: int) -> None:
    """Ends a process that must not call MPI_Finalize; the others may still wait for a failed one.

    An exit with an error is not noticed by them, so it comes after all others have come to it.
    """
    if not comm.survives_losses:
        return
    if code:
        try:
            comm.barrier()
        except RankLost:
            die()
    leave(code)
