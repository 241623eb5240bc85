"""How ranks talk to each other over MPI; see `communicator`, and `recovery` for lost ranks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from distnet.base.arrays import Array
from distnet.base.output import write_now
from distnet.parallel.communicator import (
    Combine,
    Communicator,
    Exchanged,
    Node,
    Op,
    Process,
    Request,
    host_name,
)
from distnet.parallel.leaving import wait_for_all
from distnet.parallel.patience import gather_patiently, num_cores
from distnet.parallel.position import Position
from distnet.parallel.recovery import ReportsLoss, die, gather_checked, give_up, shrink
from distnet.parallel.turns import take_turns

if TYPE_CHECKING:
    from mpi4py import MPI


class MPIRequest:
    """A request of MPI; `number` is that of its call, see Position."""

    def __init__(
        self, request: MPI.Request, number: int, position: Position, reports_loss: ReportsLoss
    ) -> None:
        self._request, self._number, self._position = request, number, position
        self._reports_loss = reports_loss

    def test(self) -> bool:
        with self._reports_loss:
            return self._request.Test()

    def wait(self) -> None:
        with self._position.waiting(self._number), self._reports_loss:
            self._request.Wait()


class MPIExchanged:
    """Several messages as one request: first those that are received, from `ranks`."""

    def __init__(
        self,
        requests: list[MPI.Request],
        ranks: Sequence[int],
        number: int,
        position: Position,
        reports_loss: ReportsLoss,
    ) -> None:
        from mpi4py import MPI

        self._requests, self._ranks = requests, ranks
        self._number, self._position = number, position
        self._statuses = [MPI.Status() for _ in requests]
        self._test_all, self._wait_all = MPI.Request.Testall, MPI.Request.Waitall
        self._reports_loss = reports_loss
        self.received: list[int] = []

    def test(self) -> bool:
        with self._reports_loss:
            if self._requests and self._test_all(self._requests, self._statuses):
                self._note()
        return not self._requests

    def wait(self) -> None:
        with self._position.waiting(self._number), self._reports_loss:
            if self._requests:
                self._wait_all(self._requests, self._statuses)
                self._note()

    def _note(self) -> None:
        self._requests, self.received = [], [0] * (len(self._ranks) + 1)
        for rank, status in zip(self._ranks, self._statuses, strict=False):
            self.received[rank] = status.Get_count()


class MPICommunicator:
    """The ranks of an MPI communicator, by default of all processes that mpirun started.

    Works on a duplicate, so that its messages never meet those of other code. Errors of MPI are
    raised as mpi4py's `MPI.Exception`, those that come of the loss of a rank as RankLost.

    Where ranks of a host share cores they are patient when they gather values, see `patience`.
    """

    def __init__(self, comm: MPI.Intracomm | None = None, survives_losses: bool = False) -> None:
        from mpi4py import MPI

        self._in_place, self._world = MPI.IN_PLACE, MPI.COMM_WORLD
        self._types = MPI.Datatype.fromcode
        self._ops: dict[Op, MPI.Op] = {"sum": MPI.SUM, "min": MPI.MIN, "max": MPI.MAX}
        self._in_flight: list[MPI.Request] = []
        self.position = Position()
        self.survives_losses = survives_losses
        self._is_crowded = True  # until it is known
        self._join((MPI.COMM_WORLD if comm is None else comm).Dup())
        self._process = Process(self.rank, host_name(), os.getpid())
        self._meet()

    def _join(self, comm: MPI.Intracomm) -> None:
        self._comm, self._reports_loss = comm, ReportsLoss(comm, self.survives_losses)
        self.rank, self.size = comm.rank, comm.size
        self._parts: dict[tuple[int, ...], Communicator] = {}

    def _meet(self) -> None:
        everyone = self.allgather((self._process, num_cores()))
        self.processes = [process for process, _ in everyone]
        hosts = [process.host for process in self.processes]
        self.node = Node.of(self.rank, hosts)
        self._is_crowded = any(hosts.count(process.host) > cores for process, cores in everyone)

    def allreduce(self, array: Array, op: Op = "sum") -> None:
        with self.position.waiting(self.position.begin()), self._reports_loss:
            self._comm.Allreduce(self._in_place, array, self._op(op, array.dtype))

    def iallreduce(self, array: Array, op: Op = "sum") -> Request:
        with self._reports_loss:
            request = self._comm.Iallreduce(self._in_place, array, self._op(op, array.dtype))
        return self._begin(request)

    def ialltoall(self, parts: Sequence[Array], rooms: Sequence[Array], tag: int) -> Exchanged:
        others = [rank for rank in range(self.size) if rank != self.rank]
        with self._reports_loss:
            requests = [self._comm.Irecv(rooms[rank], rank, tag) for rank in others]
            requests += [self._comm.Isend(parts[rank], rank, tag) for rank in others]
        self._in_flight = [other for other in self._in_flight if other] + requests
        number = self.position.begin()
        return MPIExchanged(list(requests), others, number, self.position, self._reports_loss)

    def _begin(self, request: MPI.Request) -> Request:
        self._in_flight = [other for other in self._in_flight if other] + [request]
        return MPIRequest(request, self.position.begin(), self.position, self._reports_loss)

    def _op(self, op: Op, dtype: np.dtype[Any]) -> MPI.Op:
        """MPI's handle of `op`; a function is registered when it is first used."""
        if op not in self._ops and callable(op):
            self._ops[op] = _register(op, dtype)
        return self._ops[op]

    def broadcast(self, array: Array, root: int = 0) -> None:
        with self.position.waiting(self.position.begin()), self._reports_loss:
            self._comm.Bcast(array, root)

    def gather_parts(self, array: Array, cuts: Sequence[int], root: int | None = None) -> None:
        counts = [stop - start for start, stop in pairwise(cuts)]
        layout = [array, counts, cuts[:-1], self._types(array.dtype.char)]
        with self.position.waiting(self.position.begin()), self._reports_loss:
            if root is None:
                self._comm.Allgatherv(self._in_place, layout)
            elif self.rank == root:
                self._comm.Gatherv(self._in_place, layout, root)
            else:
                start, stop = cuts[self.rank : self.rank + 2]
                part = array if array.size == stop - start else array[start:stop]
                self._comm.Gatherv(part, None, root)

    def allgather(self, value: Any) -> list[Any]:
        with self.position.waiting(self.position.begin()), self._reports_loss:
            if self.survives_losses:
                return gather_checked(self._comm, value)
            if self._is_crowded:
                return gather_patiently(self._comm, value)
            return self._comm.allgather(value)

    def _give_up(self) -> None:
        """In all parts as well: there a rank may wait for one that has noticed the loss."""
        for part in self._parts.values():
            assert isinstance(part, MPICommunicator)
            part._give_up()
        give_up(self._comm, self._in_flight)

    def confirm(self) -> None:
        with self.position.waiting(self.position.begin()), self._reports_loss:
            self._comm.Agree(1)

    def barrier(self) -> None:
        with self.position.waiting(self.position.begin()), self._reports_loss:
            self._comm.Barrier()

    def ibarrier(self) -> Request:
        with self._reports_loss:
            request = self._comm.Ibarrier()
        return self._begin(request)

    def turns(self, num: int) -> Iterator[int]:
        with self._reports_loss:
            yield from take_turns(self._comm, num)

    def split(self, part: int) -> Communicator:
        parts = tuple(self.allgather(part))
        if parts not in self._parts:  # MPI libraries have room for a few hundred communicators
            with self._reports_loss:
                ranks = self._comm.Split(part, self.rank)
            assert isinstance(ranks, type(self._comm))
            group = self._parts[parts] = MPICommunicator(ranks, self.survives_losses)
            group._is_crowded = self._is_crowded  # by all the ranks of a host
            ranks.Free()
        return self._parts[parts]

    def duplicate(self) -> MPI.Intracomm:
        """The same ranks as mpi4py has them, for code that calls MPI itself."""
        return self._comm.Dup()

    def repair(self) -> list[Process]:
        before = self.processes
        with self.position.waiting(self.position.begin()), self._reports_loss:
            self._give_up()
            self._join(shrink(self._comm))
        self._in_flight = []
        self.position.begin_repaired()
        self._meet()
        return [process for process in before if process not in self.processes]

    def abort(self, code: int) -> NoReturn:
        write_now(sys.stdout, "")
        write_now(sys.stderr, "")
        if self.survives_losses:
            die()
        time.sleep(0.1)  # Open MPI's launcher may drop what it has not yet read of the output
        self._world.Abort(code)
        os._exit(code)  # that of MPICH may return, and leaves the rest to the launcher

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: there is one group of these ranks, whatever holds it is copied."""
        return self

    def close(self) -> None:
        if self.survives_losses or not self._comm:
            return  # one may be lost here, and processes leave without MPI
        wait_for_all(self._comm)
        for group in self._parts.values():
            group.close()
        self._comm.Free()


def _register(combine: Combine, dtype: np.dtype[Any]) -> MPI.Op:
    """An operation of MPI that calls `combine`; it lives as long as the process."""
    from mpi4py import MPI

    def call(source: Any, target: Any, datatype: MPI.Datatype) -> None:
        combine(np.frombuffer(source, dtype), np.frombuffer(target, dtype))

    return MPI.Op.Create(call, commute=True)
