"""How ranks talk to each other: the interface, and what answers to it in a process on its own.

Arrays are NumPy arrays, combined in place; every call but `abort` is collective: all ranks make the
same calls in the same order. `launcher.connect` chooses the implementation: `mpi_communicator`, or
here `SerialCommunicator`, where every call is the identity, so that callers never ask for the
number of ranks.

Where lost ranks can be survived (see `recovery`), every collective call may raise RankLost, on some
ranks and not on others; all have to come to `repair`, which leaves the survivors in the group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NoReturn, Protocol, Self

from distnet.base.arrays import Array
from distnet.parallel.position import Position

Combine = Callable[[Array, Array], None]
Op = Literal["sum", "min", "max"] | Combine


def host_name() -> str:
    """The name of this host, as `socket.gethostname` has it, without that module's import."""
    return os.uname().nodename


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


@dataclass(frozen=True)
class Process:
    """Who a rank is, whatever its number becomes: `rank` is the one that it was started with."""

    rank: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})"


class Request(Protocol):
    """A collective in flight; its array must not be touched before it is finished."""

    def test(self) -> bool:
        """Whether it is finished. MPI moves data only inside its calls: this moves some."""

    def wait(self) -> None:
        """Returns when it is finished."""


class Exchanged(Request, Protocol):
    """A request of `Communicator.ialltoall`."""

    @property
    def received(self) -> list[int]:
        """How many bytes have come from each rank, once it is finished."""


class Communicator(Protocol):
    """A group of `size` processes, this one having number `rank`, on the host `node`.

    processes: its members, in the order of ranks; position: where in the program this one is;
    survives_losses: whether the group can go on without ranks that are gone.
    """

    rank: int
    size: int
    node: Node
    processes: list[Process]
    position: Position
    survives_losses: bool

    def allreduce(self, array: Array, op: Op = "sum") -> None:
        """Replaces `array` on every rank by its element-wise sum, minimum or maximum over ranks.

        Or by the result of a function `op(source, target)` that combines any two pieces, `(n,)`, in
        place in the second: element-wise and without regard to order.
        """

    def iallreduce(self, array: Array, op: Op = "sum") -> Request:
        """As `allreduce`, finished when the request says so."""

    def ialltoall(self, parts: Sequence[Array], rooms: Sequence[Array], tag: int) -> Exchanged:
        """Sends every other rank r `parts[r]` and receives what r sends this one in `rooms[r]`.

        All are bytes, uint8; a room may be longer than what comes, and the request knows how much
        it was. Only calls with one `tag`, below 32766, belong together: they may overtake others.
        """

    def broadcast(self, array: Array, root: int = 0) -> None:
        """Replaces `array` on every rank by that of `root`."""

    def gather_parts(self, array: Array, cuts: Sequence[int], root: int | None = None) -> None:
        """Puts a vector together of which rank r has [cuts[r], cuts[r + 1]): on all, or on `root`.

        There `array` is the whole vector. Other ranks than `root` give it, or their part alone.
        """

    def allgather(self, value: Any) -> list[Any]:
        """Every rank's `value` (small, picklable), in the order of ranks."""

    def barrier(self) -> None:
        """Returns when every rank has called it."""

    def ibarrier(self) -> Request:
        """A barrier that is over when the request says so."""

    def turns(self, num: int) -> Iterator[int]:
        """Yields 0 ... `num` - 1 in order, each on one rank alone: the one that asks first.

        All ranks have to come to the end; nobody waits for a rank that is busy between two of them.
        """

    def split(self, part: int) -> Communicator:
        """The ranks that give the same `part`, in the same order, as a group of their own.

        Equal divisions have the same groups. Their calls are not counted in `position`: other
        parts may make others.
        """

    def repair(self) -> list[Process]:
        """After RankLost: leaves the survivors in the group, renumbered; returns who is gone.

        What was in flight is given up. Raises RankLost if a rank is lost meanwhile: call it again.
        """

    def confirm(self) -> None:
        """Raises RankLost on all ranks alike if any was lost since the last repair.

        Needed where state was exchanged: another call may succeed although a rank was lost in it.
        """

    def abort(self, code: int) -> NoReturn:
        """Ends all ranks at once with exit code `code`, from any one of them.

        MPICH's `mpirun` may return 9 instead, never 0: it combines the exit codes of all ranks, and
        on a busy machine counts those that it has killed itself. Where losses can be survived, only
        this rank ends, by a signal, which the others notice.
        """

    def close(self) -> None:
        """Leaves the group, once all ranks do, or did; the communicator cannot be used any more."""


class Done:
    """A request that was finished from the start."""

    def test(self) -> bool:
        return True

    def wait(self) -> None:
        return None


class NothingReceived(Done):
    """The request of a process that has nobody to receive from."""

    received: ClassVar[list[int]] = [0]


class SerialCommunicator:
    """The group of one process: nothing to combine, nobody to wait for, no MPI."""

    rank = 0
    size = 1
    survives_losses = False

    def __init__(self) -> None:
        self.processes = [Process(0, host_name(), os.getpid())]
        self.node = Node.of(0, [host_name()])
        self.position = Position()

    def allreduce(self, array: Array, op: Op = "sum") -> None:
        return None

    def iallreduce(self, array: Array, op: Op = "sum") -> Request:
        return Done()

    def ialltoall(self, parts: Sequence[Array], rooms: Sequence[Array], tag: int) -> Exchanged:
        return NothingReceived()

    def broadcast(self, array: Array, root: int = 0) -> None:
        return None

    def gather_parts(self, array: Array, cuts: Sequence[int], root: int | None = None) -> None:
        return None

    def allgather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return None

    def ibarrier(self) -> Request:
        return Done()

    def turns(self, num: int) -> Iterator[int]:
        return iter(range(num))

    def split(self, part: int) -> Communicator:
        return SerialCommunicator()

    def repair(self) -> list[Process]:
        return []

    def confirm(self) -> None:
        return None

    def abort(self, code: int) -> NoReturn:
        raise SystemExit(code)

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: there is one group of these ranks, whatever holds it is copied."""
        return self

    def close(self) -> None:
        return None
