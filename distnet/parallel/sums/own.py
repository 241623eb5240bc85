"""A user's own all-reduce as the way of the sums, held against MPI's: `--allreduce ring:allreduce`.

    def allreduce(send, receive, comm): ...

is called on all ranks alike for every bucket: `send` (n,) are this rank's integers, `receive` (n,)
starts as zeros and shall hold their sums over all ranks, `comm` is a communicator of mpi4py that
nobody else uses. Sums of integers have no rounding, so they are right or wrong: each is compared
with what `MPI_Allreduce` makes of the same numbers, and training never goes on with a wrong one.
Both are timed, from a barrier to a barrier.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.errors import AgreedError
from distnet.parallel.mpi_communicator import MPICommunicator
from distnet.parallel.sums.exchange import Exchange, Messages
from distnet.parallel.sums.formats import Format

Function = Callable[[Array, Array, Any], object]  # Any: a communicator of mpi4py
NUM_WARMUP = 2  # first calls, which are not counted where there are others


class WrongSum(AgreedError):  # noqa: N818  the condition is the name
    """A user's all-reduce has not made the sums that MPI makes."""


@dataclass(frozen=True)
class OwnAllreduce:
    """`function` with the `name` by which messages call it; makes the exchange of a reducer."""

    function: Function
    name: str

    @classmethod
    def named(cls, name: str) -> OwnAllreduce:
        """The one called `MODULE:FUNCTION`, a module in the current directory or an installed one.

        Raises ValueError, one line, if it cannot be had.
        """
        module_name, _, function_name = name.partition(":")
        if not module_name or not function_name:
            raise ValueError(f"--allreduce: found {name!r}, expected MODULE:FUNCTION")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the user's file does when it is imported
            raise ValueError(
                f"--allreduce {name}: module {module_name} cannot be imported, in {os.getcwd()}: "
                f"{type(error).__name__}: {error}"
            ) from error
        function = getattr(module, function_name, None)
        if not callable(function):
            found = "nothing" if function is None else f"{type(function).__name__}"
            raise ValueError(
                f"--allreduce {name}: found {found} of that name in {module.__file__}, expected a "
                "function(send, receive, comm)"
            )
        return cls(function, name)

    def __call__(self, comm: Communicator, format: Format) -> Exchange:
        """On one rank there is nothing to sum, and the function is not called.

        Raises ValueError where there is nothing to hold its sums against.
        """
        if not (format.exact and format.op == "sum"):
            raise ValueError(
                "--allreduce: found sums that are not exact, expected --reduction exact or exact32"
            )
        if comm.survives_losses:
            raise ValueError("--allreduce: found a job that survives the loss of ranks")
        if not isinstance(comm, MPICommunicator):
            return Messages(comm, format)
        return Judged(comm, format, self)


@dataclass
class Times:
    """Seconds of every call: of the function, and of MPI for the same numbers."""

    own: list[float] = field(default_factory=list)
    mpi: list[float] = field(default_factory=list)

    def typical(self) -> tuple[float, float]:
        """The medians, without the first calls."""
        from statistics import median  # few runs come here

        skipped = NUM_WARMUP if len(self.own) > NUM_WARMUP else 0
        return median(self.own[skipped:]), median(self.mpi[skipped:])


class Judged(Messages):
    """Every bucket is combined by the function; all is one bucket, unless the user wants more."""

    def __init__(self, comm: MPICommunicator, format: Format, own: OwnAllreduce) -> None:
        super().__init__(comm, format)
        self.own, self._mpi, self.times = own, comm.duplicate(), Times()

    def best_bucket_bytes(self) -> int:
        return max(self.total.nbytes, 1)

    def begin(self, bucket: slice) -> Request:
        message = self.format.encode(self.total[bucket], bucket.start)
        self._messages[bucket.start] = message
        self.bytes_sent += message.nbytes
        send, receive = message.copy(), np.zeros_like(message)
        position = self.comm.position
        with position.during(f"the sum that {self.own.name} makes"):
            self.times.own.append(self._timed(self.call, send, receive))
            mine = message.copy()
            self.times.mpi.append(self._timed(self.comm.allreduce, message))
            self._judge(mine, receive, message)
        return Done()

    def call(self, send: Array, receive: Array) -> None:
        """The function itself, among what else there is to do for a bucket."""
        position = self.comm.position
        with position.waiting(position.begin()):
            self.own.function(send, receive, self._mpi)

    def _timed(self, call: Callable[..., Any], *arrays: Array) -> float:
        self.comm.barrier()
        began = time.perf_counter()
        call(*arrays)
        self.comm.barrier()
        return time.perf_counter() - began

    def _judge(self, mine: Array, received: Array, expected: Array) -> None:
        """Raises WrongSum on all ranks if the function was wrong on any."""
        found = what_is_wrong(mine, received, expected)
        num_wrong = np.array([found != ""], np.int64)
        self.comm.allreduce(num_wrong)
        if not num_wrong[0]:
            return
        everywhere = enumerate(self.comm.allgather(found))
        rank, text = next((rank, text) for rank, text in everywhere if text)
        ranks = f"on {num_wrong[0]} of {self.comm.size} ranks"
        raise WrongSum(
            f"--allreduce {self.own.name}: its sums are wrong {ranks} in step "
            f"{self.comm.position.step}; on rank {rank} {text}"
        )


def what_is_wrong(mine: Array, received: Array, expected: Array) -> str:
    """In words, of the numbers `mine` of a rank, and what it has and should have; "" if right."""
    wrong = np.flatnonzero(received != expected)
    if not wrong.size:
        return ""
    first = wrong[0]
    text = (
        f"{wrong.size:,} of {expected.size:,} are, the first at index {first}: found "
        f"{received[first]}, expected {expected[first]}"
    )
    if not received.any():
        return f"{text}; nothing was written to receive"
    if np.array_equal(received, mine):
        return f"{text}; receive holds what this rank had itself"
    return text
