"""A program in which something goes wrong: `failing_program.py WHAT RANK...`, on these ranks."""

from __future__ import annotations

import os
import sys

from distnet.base.errors import DataError, InputChangedError
from distnet.parallel import Communicator, agree, run_command, together


def misbehave(what: str) -> None:
    if what == "exception":
        raise ZeroDivisionError("this cannot be computed")
    if what.startswith("exit"):
        sys.exit(int(what.removeprefix("exit")))
    if what == "changed":
        raise InputChangedError("x: found another file")
    if what == "data":
        raise DataError("labels: found 11")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "kill":
        os.kill(os.getpid(), 9)
    if what == "bad-input":
        raise ValueError("found a shoe, expected an image; look again")


def command(comm: Communicator) -> int:
    what, ranks = sys.argv[1], list(map(int, sys.argv[2:]))
    mine = what if comm.rank in ranks else "nothing"
    if what == "bad-input":
        together(comm, lambda: misbehave(mine))
    elif what == "disagree":
        agree(comm, {"seed": 1 if comm.rank in ranks else 0})
    elif what != "return":
        misbehave(mine)
    comm.barrier()  # where the others wait for the rank that is gone
    return 75 if what == "return" else 0


if __name__ == "__main__":
    sys.exit(run_command(command, os.environ))
