"""Ranks that come to the end while others wait for them say so."""

from __future__ import annotations

import re

import launching
import pytest

PROGRAM = """
import os, sys
import numpy as np
import distnet
from distnet.parallel import leaving

here, ends = eval(sys.argv[1]), sys.argv[2]
leaving.PATIENCE_SECONDS = float(sys.argv[3])


def main(comm):
    if comm.rank in here:
        network = distnet.Network([distnet.Linear(2)], (3,))
        distnet.fit(network, np.zeros((4, 3)), [0, 1, 0, 1], steps=1, comm=comm)


if ends == "run":
    distnet.run(main)
main(distnet.connect())
"""


@pytest.mark.parametrize(
    ("here", "ends", "told"),
    [
        ("[0]", "run", "rank (1|2) .* for other ranks"),
        ("[1]", "run", "rank 0 .* for rank 1"),
        ("[1, 2]", "connect", "rank 0 .* for ranks 1, 2"),
    ],
)
@pytest.mark.mpi_launch
def test_a_call_of_some_ranks_alone_is_told_by_the_others(here, ends, told):
    with launching.running(3, "-c", PROGRAM, here, ends, "1") as job:
        line = next(line for line in job.stderr if line.startswith("distnet:"))
    assert re.match(f"distnet: warning: {told}; `fit`, and all else that is given the", line)


@pytest.mark.parametrize("ends", ["run", "connect"])
@pytest.mark.mpi_launch
def test_nothing_is_told_of_ranks_that_end_together(mpirun, ends):
    done = mpirun(3, "-c", PROGRAM, "[0, 1, 2]", ends, "3600")
    assert (done.returncode, done.stderr) == (0, "")
