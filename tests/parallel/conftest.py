"""One test body for a process on its own and for MPI."""

from __future__ import annotations

import pytest

from distnet.parallel import Communicator

SIZES = [
    pytest.param(size, id=f"{size}-ranks", marks=pytest.mark.mpi(min_size=size))
    for size in (1, 2, 3, 4)
]


@pytest.fixture(params=[pytest.param(1, id="serial"), *SIZES])
def any_comm(request: pytest.FixtureRequest, comm: Communicator) -> Communicator:
    """The serial communicator, then MPI on 1 to 4 ranks: the test runs once on each."""
    assert comm.size >= request.param
    return comm
