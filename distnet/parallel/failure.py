"""All ranks fail together: no rank waits for one that is gone, and every error is shown once.

Two kinds of failure are told apart by how they are raised:

- *Agreed*: raised on every rank alike, as an `AgreedError`, see `agreement`. Rank 0 shows its line;
  every rank leaves through MPI_Finalize with its exit code.
- *Lonely*: anything else that leaves the program, be it an exception, sys.exit or Ctrl-C. The other
  ranks would wait for this one forever, so it shows its traceback, or one line if that says all,
  and aborts the job.

`fail_together` does that for a block, in which commands run (`command`). `install_hook` does it for
any other program, as far as Python lets it.

Where lost ranks can be survived (`recovery`), a lonely failure ends that rank alone.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NoReturn

from distnet.base.errors import DataError, InputChangedError
from distnet.base.output import write_now
from distnet.parallel.agreement import AgreedExit
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import AgreedError

SAY_ALL = (DataError, InputChangedError)  # in one line, which no traceback explains


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
    except BaseException as error:
        _end(error, comm)


def install_hook(comm: Communicator) -> None:
    """From now on an exception that ends this process ends all ranks, as in `fail_together`.

    Python has no such hook for sys.exit: a rank that leaves by it alone keeps the others waiting.
    """

    def end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        _end(error, comm)

    sys.excepthook = end


def show(text: str) -> None:
    """Written at once, so that the lines of one rank stay together."""
    write_now(sys.stdout, "")
    write_now(sys.stderr, text)


def _end(error: BaseException, comm: Communicator) -> NoReturn:
    if isinstance(error, AgreedError):
        if comm.rank == 0:
            show(f"distnet: error: {error}\n")
        raise AgreedExit(error.exit_code) from None
    show(_report(error, comm))
    comm.abort(_exit_code(error))


def _report(error: BaseException, comm: Communicator) -> str:
    """The traceback of `error`, or the line that says all; each line marked with the rank."""
    if isinstance(error, KeyboardInterrupt):
        lines = ["interrupted"]
    elif isinstance(error, SAY_ALL):
        lines = [f"distnet: error: {error}"]
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
    if isinstance(error, SAY_ALL):
        return 2
    return 1
