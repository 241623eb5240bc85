"""Runs the tests: those that need several ranks are started on them, by plain `pytest` too.

A test marked `@pytest.mark.mpi(min_size=N)` runs inside N ranks, the same function on each. Plain
`pytest` starts it under mpirun, with the others of its folder that need N ranks, and reports it
under its own name. `mpirun -n N python -m pytest --with-mpi` works as well: there pytest-mpi skips
what needs more than N ranks. Either way a failure on one rank ends the job at once, since the
others may wait for it forever, and so does a test that takes longer than the marker's `timeout`.

A test that launches whole programs takes the fixture `mpirun`. It gets the marker `mpi_launch`, so
`-m "mpi or mpi_launch"` selects all tests that involve MPI.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from subprocess import CompletedProcess

import launching
import pytest
import rank_plugins
from hypothesis import settings

from distnet.parallel import Communicator, SerialCommunicator, connect
from distnet.parallel.launcher import Launch

COMM = pytest.StashKey[Communicator]()

# Shared machines stall for seconds; inside ranks, all have to draw the same examples.
settings.register_profile("distnet", deadline=None, derandomize=True)
settings.load_profile("distnet")


@pytest.hookimpl(trylast=True)  # when there is a terminal reporter to take away
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mpi_launch: launches programs on several ranks")
    config.addinivalue_line("markers", "gpu: computes on a GPU, and is skipped where there is none")
    config.stash[COMM] = connect(os.environ)
    if Launch.find(os.environ) is None:
        config.pluginmanager.register(rank_plugins.StartRanks(config))
    else:
        config.pluginmanager.register(rank_plugins.InRank(config, connect(os.environ)))


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mpirun" in getattr(item, "fixturenames", ()):
            item.add_marker("mpi_launch")


@pytest.fixture
def comm(request: pytest.FixtureRequest) -> Communicator:
    """All ranks of this test run; serial in a test without the marker `mpi`."""
    if request.node.get_closest_marker("mpi") is None:
        return SerialCommunicator()
    return request.config.stash[COMM]


@pytest.fixture
def mpirun() -> Callable[..., CompletedProcess[str]]:
    """`mpirun(n, *args, env=None)` runs Python with `args` on n ranks."""
    return launching.mpirun
