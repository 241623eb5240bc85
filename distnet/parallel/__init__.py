"""Ranks that compute one result: communicators, exact sums of gradients, failing together."""

from distnet.parallel.agreement import AgreedExit, agree, together
from distnet.parallel.command import fail_together, run_command
from distnet.parallel.communicator import Communicator, MPICommunicator, SerialCommunicator
from distnet.parallel.errors import (
    AgreedError,
    DisagreementError,
    LaunchError,
    NonFiniteGradient,
    RankError,
    RankLost,
)
from distnet.parallel.launcher import connect
from distnet.parallel.shared_map import shared_map
from distnet.parallel.sums.fixed_point import FixedPoint
from distnet.parallel.sums.reducer import EXCHANGES, REDUCTIONS, Reducer, make_reducer

__all__ = [
    "EXCHANGES",
    "REDUCTIONS",
    "AgreedError",
    "AgreedExit",
    "Communicator",
    "DisagreementError",
    "FixedPoint",
    "LaunchError",
    "MPICommunicator",
    "NonFiniteGradient",
    "RankError",
    "RankLost",
    "Reducer",
    "SerialCommunicator",
    "agree",
    "connect",
    "fail_together",
    "make_reducer",
    "run_command",
    "shared_map",
    "together",
]
