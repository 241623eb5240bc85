"""A script of one's own as a program of many ranks: `distnet.run(main)`, under mpirun or alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn

from distnet.parallel import Communicator, LaunchError, agree, run_command, working_alone
from distnet.parallel import launcher as _launcher
from distnet.training import fit as _fit
from distnet.training.fingerprint import REMEDY, numerics_fingerprint, one_blas_thread
from distnet.training.history import History


def run(main: Callable[[Communicator], int | None]) -> NoReturn:
    """Runs `main(comm)` on every rank that mpirun started, or in this process alone, and exits.

        distnet.run(main)  # the last line of a script

    `comm` is what `fit` and others take as their `comm`. The exit code is what `main` returns, 0
    for None. An exception on one rank ends all of them. Ranks whose NumPy would compute other bits
    are refused with one line and exit code 2.
    """

    def program(comm: Communicator) -> int:
        with one_blas_thread():
            agree(comm, numerics_fingerprint(), REMEDY)
            return main(comm) or 0

    sys.exit(run_command(program, os.environ))


@wraps(_fit.fit)
def fit(network: Any, images: Any, labels: Any, **settings: Any) -> History:
    if settings.get("comm") is None and (problem := working_alone(os.environ)):
        raise LaunchError(f"fit without comm: {problem}")
    return _fit.fit(network, images, labels, **settings)


def connect() -> Communicator:
    """The communicator of this process's job, for notebooks and for programs with a loop of theirs.

    `run` does more: it also checks the ranks, and gives the exit code. Raises LaunchError.
    """
    return _launcher.connect(os.environ)
