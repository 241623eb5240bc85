"""Ranks that compute one result: communicators, exact sums of gradients, failing together."""

from distnet.parallel.agreement import AgreedExit, agree, together
from distnet.parallel.command import run_command, run_ranks
from distnet.parallel.communicator import Communicator, SerialCommunicator
from distnet.parallel.errors import (
    AgreedError,
    DisagreementError,
    LaunchError,
    NonFiniteGradient,
    PlacementError,
    RankError,
    RankLost,
)
from distnet.parallel.failure import fail_together
from distnet.parallel.launcher import connect, expect_hosts, working_alone
from distnet.parallel.mpi_communicator import MPICommunicator
from distnet.parallel.shared_map import shared_map
from distnet.parallel.sums.fixed_point import FixedPoint
from distnet.parallel.sums.own import Judged, OwnAllreduce
from distnet.parallel.sums.reducer import (
    CHANGES,
    EXCHANGES,
    REDUCTIONS,
    Reducer,
    make_reducer,
)

__all__ = [
    "CHANGES",
    "EXCHANGES",
    "REDUCTIONS",
    "AgreedError",
    "AgreedExit",
    "Communicator",
    "DisagreementError",
    "FixedPoint",
    "Judged",
    "LaunchError",
    "MPICommunicator",
    "NonFiniteGradient",
    "OwnAllreduce",
    "PlacementError",
    "RankError",
    "RankLost",
    "Reducer",
    "SerialCommunicator",
    "agree",
    "connect",
    "expect_hosts",
    "fail_together",
    "make_reducer",
    "run_command",
    "run_ranks",
    "shared_map",
    "together",
    "working_alone",
]
