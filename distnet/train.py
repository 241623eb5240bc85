"""`distnet train`: trains a network, in one process or on ranks of mpirun.

Exit codes: 0 done, 2 wrong usage or input, 74 computed but not (all) written, 75 stopped early
after a checkpoint.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from distnet.base.blas import one_blas_thread
from distnet.parallel import Communicator, run_command, together
from distnet.training.elastic import survive
from distnet.training.job import Job
from distnet.training.signals import StopSignals


def train(comm: Communicator, argv: Sequence[str] | None = None) -> int:
    """The command: everything between the flags, by default the process's, and the exit code."""
    # Now and not before: the flags are made of the tables of models, data sets, optimizers ..., to
    # which a script that has imported this file may have added.
    from distnet.building.job import job_of
    from distnet.training.config import parse

    flags = sys.argv[1:] if argv is None else argv

    def start() -> Job:
        config = together(comm, lambda: parse(flags, "distnet train"))
        return job_of(config, comm, os.environ, lambda: signals.wanted)

    with StopSignals() as signals, one_blas_thread():
        return survive(comm, start)


def main(argv: Sequence[str]) -> int:
    """`distnet train`: connects to the other ranks and trains; returns the exit code."""
    return run_command(lambda comm: train(comm, argv), os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
