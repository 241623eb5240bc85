"""How ranks talk to each other: one interface, over MPI or for a process on its own.

Arrays are NumPy arrays, combined in place; every call but `abort` is collective: all ranks make the
same calls in the same order. `launcher.connect` chooses the implementation. A process on its own
has a `SerialCommunicator`, where every call is the identity, so that callers never ask for the
number of ranks.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol

import numpy as np

if TYPE_CHECKING:
    from mpi4py import MPI

Array = np.ndarray[Any, np.dtype[Any]]
Op = Literal["sum", "min", "max"]


@dataclass(frozen=True)
class Node:
    """The host of a rank: its name, the rank's number among its `size` ranks, how many hosts."""

    name: str
    rank: int
    size: int
    count: int

    @classmethod
    def of(cls, rank: int, hosts: Sequence[str]) -> Node:
        """The node of `rank`, where `hosts[r]` is the host name of rank r."""
        name = hosts[rank]
        return cls(name, hosts[:rank].count(name), hosts.count(name), len(set(hosts)))


class Request(Protocol):
    """A collective in flight; its array must not be touched before it is finished."""

    def test(self) -> bool:
        """Whether it is finished. MPI moves data only inside its calls: this moves some."""

    def wait(self) -> None:
        """Returns when it is finished."""


class Communicator(Protocol):
    """A group of `size` processes, this one having number `rank`, on the host `node`."""

    rank: int
    size: int
    node: Node

    def allreduce(self, array: Array, op: Op = "sum") -> None:
        """Replaces `array` on every rank by its element-wise sum, minimum or maximum over ranks."""

    def iallreduce(self, array: Array, op: Op = "sum") -> Request:
        """As `allreduce`, finished when the request says so."""

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replaces `array` on every rank by that of `root`."""

    def allgather(self, value: Any) -> list[Any]:
        """Every rank's `value` (small, picklable), in the order of ranks."""

    def barrier(self) -> None:
        """Returns when every rank has called it."""

    def abort(self, code: int) -> NoReturn:
        """Ends all ranks at once with exit code `code`, from any one of them."""

    def close(self) -> None:
        """Leaves the group; the communicator cannot be used any more."""


class Done:
    """A request that was finished from the start."""

    def test(self) -> bool:
        return True

    def wait(self) -> None:
        return None


class SerialCommunicator:
    """The group of one process: nothing to combine, nobody to wait for, no MPI."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.node = Node.of(0, [socket.gethostname()])

    def allreduce(self, array: Array, op: Op = "sum") -> None:
        return None

    def iallreduce(self, array: Array, op: Op = "sum") -> Request:
        return Done()

    def broadcast(self, array: Array, root: int = 0) -> None:
        return None

    def allgather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return None

    def abort(self, code: int) -> NoReturn:
        raise SystemExit(code)

    def close(self) -> None:
        return None


class MPIRequest:
    """A request of MPI."""

    def __init__(self, request: MPI.Request) -> None:
        self._request = request

    def test(self) -> bool:
        return self._request.Test()

    def wait(self) -> None:
        self._request.Wait()


class MPICommunicator:
    """The ranks of an MPI communicator, by default of all processes that mpirun started.

    Works on a duplicate, so that its messages never meet those of other code. Errors of MPI are
    raised as mpi4py's `MPI.Exception`.
    """

    def __init__(self, comm: MPI.Intracomm | None = None) -> None:
        from mpi4py import MPI

        self._comm = (MPI.COMM_WORLD if comm is None else comm).Dup()
        self._in_place = MPI.IN_PLACE
        self._ops = {"sum": MPI.SUM, "min": MPI.MIN, "max": MPI.MAX}
        self.rank, self.size = self._comm.rank, self._comm.size
        self.node = Node.of(self.rank, self.allgather(socket.gethostname()))

    def allreduce(self, array: Array, op: Op = "sum") -> None:
        self._comm.Allreduce(self._in_place, array, self._ops[op])

    def iallreduce(self, array: Array, op: Op = "sum") -> Request:
        return MPIRequest(self._comm.Iallreduce(self._in_place, array, self._ops[op]))

    def broadcast(self, array: Array, root: int = 0) -> None:
        self._comm.Bcast(array, root)

    def allgather(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def barrier(self) -> None:
        self._comm.Barrier()

    def abort(self, code: int) -> NoReturn:
        sys.stdout.flush()
        sys.stderr.flush()
        self._comm.Abort(code)
        raise AssertionError("MPI_Abort returned")

    def close(self) -> None:
        self._comm.Free()
