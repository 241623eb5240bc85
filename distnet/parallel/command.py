"""A program on several ranks ends as one: nobody waits for a rank that is gone.

Two kinds of failure are told apart by how they are raised:

- *Agreed*: raised on every rank alike, as an `AgreedError`, see `agreement`. Rank 0 shows its line;
  every rank leaves through MPI_Finalize with its exit code.
- *Lonely*: anything else that leaves the program, be it an exception, sys.exit or Ctrl-C. The other
  ranks would wait for this one forever, so it shows its traceback and aborts the job.

Commands run inside `run_command`, which provides both:

    sys.exit(run_command(train, os.environ))

Where lost ranks can be survived (`recovery`), a lonely failure ends that rank alone.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from distnet.parallel.agreement import AgreedExit
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import AgreedError, LaunchError, RankLost
from distnet.parallel.launcher import connect
from distnet.parallel.recovery import die, leave


@contextmanager
def fail_together(comm: Communicator) -> Iterator[None]:
    """An exception that leaves the block ends all ranks, soon, with a non-zero exit code.

    Raises AgreedExit after an AgreedError. Leave the block by `return`, never by sys.exit: of that
    a rank cannot know whether the others do the same, so it counts as a failure, on one rank too.
    """
    try:
        yield
    except AgreedExit:
        raise
    except AgreedError as error:
        if comm.rank == 0:
            _show(f"distnet: error: {error}\n")
        raise AgreedExit(error.exit_code) from None
    except BaseException as error:
        _show(_report(error, comm))
        comm.abort(_exit_code(error))


def run_command(command: Callable[[Communicator], int], environ: Mapping[str, str]) -> int:
    """Connects, runs `command(comm)` in `fail_together`, returns its exit code (2: LaunchError)."""
    try:
        comm = connect(environ)
    except LaunchError as error:
        if error.speaks:
            _show(f"distnet: error: {error}\n")
        return 2
    try:
        with fail_together(comm):
            code = command(comm)
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


def _report(error: BaseException, comm: Communicator) -> str:
    """The traceback of `error`, or one line for an exit; each line marked with the rank."""
    if isinstance(error, KeyboardInterrupt):
        lines = ["interrupted"]
    elif isinstance(error, SystemExit):
        lines = [f"left by sys.exit({error.code!r}) on its own; commands return their exit code"]
    else:
        lines = "".join(traceback.format_exception(error)).splitlines()
    mark = f"[rank {comm.rank}] " if comm.size > 1 else ""
    return "".join(f"{mark}{line}\n" for line in lines)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 130  # 128 + SIGINT, as shells count
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code or 1
    return 1


def _show(text: str) -> None:
    """Written at once, so that the lines of one rank stay together."""
    sys.stdout.flush()
    sys.stderr.write(text)
    sys.stderr.flush()
