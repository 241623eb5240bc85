"""Rare synchronisation: logical islands that train apart and come together every so many steps.

DiLoCo (Douillard et al. 2023, arXiv:2311.08105) with islands that do not depend on the ranks. A
fixed number of islands is part of the configuration. Every step cuts the global batch into as many
parts. The plan of a round:

1. *enter*: each island begins at the parameters that all have in common, with its own memory: the
   moments of its optimizer, what its sums depend on.
2. *train*: it makes `sync_every` steps on its parts of the batches, each one a `Learner.step`. It
   leaves out those in which a short batch has no sample for it; the numbers of the others, by which
   Adam corrects its bias, stay those of the steps.
3. *meet*: all ranks learn whether an island has failed, whether to stop, and how large the changes
   are, in one small message.
4. *combine*: the changes of all islands are summed exactly, as gradients are, and so are their
   running statistics, losses and counts; the outer step follows from the mean.

Islands are dealt to ranks as micro-batches are: a rank has one or several, or several ranks share
the steps of one. Where an island is computed changes nothing, so the result has the same bits on
any number of ranks, and when a rank is lost the others compute its islands from the last round on.

Between two rounds parameters, statistics and the outer velocity are the same on all ranks, and the
memory of an island is known to its own ranks. All others are told of it before a checkpoint is
written (`complete`) and, where ranks may be lost, in every round (`_share`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from distnet.base.arrays import Array
from distnet.base.options import Option
from distnet.optim.outer import OuterNesterov
from distnet.parallel.communicator import Communicator, SerialCommunicator
from distnet.parallel.dealing import deal
from distnet.parallel.errors import AgreedError, RankLost
from distnet.parallel.sums.own import OwnAllreduce
from distnet.parallel.sums.reducer import CHANGES, Reducer
from distnet.training.files.checkpoint import ISLAND, OUTER, SUM
from distnet.training.step.island_changes import RESIDUAL, Arrival, Changes, Memory
from distnet.training.step.replicas import ReplicasDiffer, verify
from distnet.training.step.result import RankWork, StepResult, joined
from distnet.training.step.synchronization import Learner


@dataclass(frozen=True, kw_only=True)
class LocalSteps:
    """How many islands there are, how rarely they synchronise, and how: `--sync local`."""

    islands: Annotated[
        int,
        Option(
            "learners that share the data and train apart, whatever the number of ranks",
            metavar="N",
            limits={">=": 1, "<=": 1024},
        ),
    ] = 4
    sync_every: Annotated[
        int,
        Option(
            "steps that an island makes between two synchronisations",
            metavar="STEPS",
            limits={">=": 1, "<=": 1_000_000},
        ),
    ] = 50
    outer_lr: Annotated[
        float,
        Option(
            "how far the parameters go along the mean change of the islands",
            metavar="X",
            limits={">": 0, "<=": 10},
        ),
    ] = 1.0
    outer_momentum: Annotated[
        float,
        Option(
            "share of the last outer velocity that the next one keeps",
            metavar="X",
            limits={">=": 0, "<": 1},
        ),
    ] = 0.5
    sync_reduction: Annotated[
        str,
        Option(
            "how the changes of islands travel, the same bits on any number of ranks: in 8 bytes a "
            "number, in 4, or in 1 or a half with error feedback",
            choices=tuple(CHANGES),
        ),
    ] = "exact8"


@dataclass(frozen=True)
class Place:
    """Where islands are computed.

    islands: those of this rank; ranks: those that share their steps; leaders: the rank that speaks
    for each of all islands.
    """

    islands: range
    ranks: Communicator
    leaders: list[int]


def deal_islands(comm: Communicator, num_islands: int) -> Place:
    """Each rank has islands of its own or, where there are more ranks than islands, a part of one.

    All ranks have to call it.
    """
    rank, size = comm.rank, comm.size
    if size <= num_islands:
        dealt = [deal(num_islands, r, size) for r in range(size)]
        leaders = [r for r, islands in enumerate(dealt) for _ in islands]
        return Place(dealt[rank], SerialCommunicator(), leaders)
    groups = [deal(size, island, num_islands) for island in range(num_islands)]
    mine = next(island for island, ranks in enumerate(groups) if rank in ranks)
    ranks = comm if num_islands == 1 else comm.split(mine)
    return Place(range(mine, mine + 1), ranks, [group[0] for group in groups])


class Islands:
    """The synchronization of `LocalSteps`, see above, for one learner.

    reducer_of: makes the reducer of the ranks that share an island; exchange: how changes travel.
    """

    def __init__(
        self,
        options: LocalSteps,
        learner: Learner,
        reducer_of: Callable[[Communicator], Reducer],
        exchange: str | OwnAllreduce,
    ) -> None:
        parameters, number = learner.parameters, options.islands
        self._number, self._every = number, options.sync_every
        self._reducer_of = reducer_of
        size, dtype = parameters.values.size, parameters.dtype
        self._outer = OuterNesterov(size, options.outer_lr, options.outer_momentum, dtype=dtype)
        self._changes = Changes(options.sync_reduction, number, learner, exchange)
        kept = learner.step_state() | self._changes.residual
        self._memories = [_copy(kept) for _ in range(number)]
        self._start = _copy(_model(learner))
        self._deal(learner)
        self._untold = ""  # what was repaired since the last comparison

    def advance(
        self, learner: Learner, step: int, total_steps: int, wants_stop: Callable[[], bool]
    ) -> StepResult:
        _take(self._start, _model(learner))
        stop = min(step - step % self._every + self._every, total_steps)
        try:
            return self._round(learner, step, stop, wants_stop)
        except (AgreedError, RankLost):
            _take(_model(learner), self._start)
            learner.parameters.refresh()
            raise

    def previous(self, num_done: int) -> int:
        return max(0, num_done - 1) // self._every * self._every

    def _round(
        self, learner: Learner, step: int, stop: int, wants_stop: Callable[[], bool]
    ) -> StepResult:
        """The steps from `step` to before `stop`, of all islands; changes the state at its end."""
        began, comm = time.perf_counter(), learner.comm
        self._rejoin(learner)
        arrivals, failure = self._train(learner, step, stop)
        work = self._work(arrivals.values())
        met = time.perf_counter()
        with comm.position.during("islands"):
            stops = self._meet(comm, arrivals, failure, wants_stop())
            result = self.synchronize(learner, step, stop, arrivals)
        if self._number > 1:
            work.bytes_sent += self._changes.bytes_sent
        work.num_steps, work.seconds = stop - step, time.perf_counter() - began
        work.wait_seconds += time.perf_counter() - met
        return replace(result, own=work, stop=stops, num_steps=stop - step)

    def synchronize(
        self, learner: Learner, step: int, stop: int, arrivals: dict[int, Arrival]
    ) -> StepResult:
        """From where the islands have got to one state; what all of them have measured."""
        memories = {island: each.memory for island, each in arrivals.items()}
        if learner.comm.survives_losses:  # what a lost rank alone knew would be lost
            memories = self._share(learner.comm, memories)
        result = self._combine(learner, step, stop, arrivals)
        for island, memory in memories.items():
            _take(self._memories[island], memory)
        self._is_complete = len(memories) == self._number
        return result

    def _deal(self, learner: Learner) -> None:
        """Decides where islands are computed."""
        self._place = deal_islands(learner.comm, self._number)
        self._processes = learner.comm.processes
        self._is_complete = False

    def _rejoin(self, learner: Learner) -> None:
        """Deals islands out again if ranks were lost, whenever that was."""
        if learner.comm.processes is not self._processes:
            self._deal(learner)
            learner.ranks, learner.reducer = self._place.ranks, self._reducer_of(self._place.ranks)

    def _train(
        self, learner: Learner, step: int, stop: int
    ) -> tuple[dict[int, Arrival], AgreedError | None]:
        """The steps of this rank's islands, up to one that fails."""
        arrivals: dict[int, Arrival] = {}
        for island in self._place.islands:
            self._enter(learner, island)
            batches = [s for s in range(step, stop) if learner.sampler.part(s, island).size]
            try:
                results = [learner.step(s, part=island) for s in batches]
            except AgreedError as error:
                where = f"island {island}, " if self._number > 1 else ""
                return arrivals, type(error)(f"{where}{error}")
            arrivals[island] = self._arrive(learner, island, results)
        return arrivals, None

    def _enter(self, learner: Learner, island: int) -> None:
        _take(_model(learner), self._start)
        _take(learner.step_state(), self._memories[island])
        learner.parameters.refresh()

    def _arrive(self, learner: Learner, island: int, results: Sequence[StepResult]) -> Arrival:
        memory = _copy(learner.step_state())
        change = learner.parameters.values - self._start["values"]
        if RESIDUAL in self._memories[island]:
            memory[RESIDUAL] = self._memories[island][RESIDUAL].copy()
            change += memory[RESIDUAL]
        statistics = learner.parameters.statistics.copy()
        result = joined(results, learner.objective) if results else None
        return Arrival(change, statistics, memory, result)

    def _meet(
        self,
        comm: Communicator,
        arrivals: dict[int, Arrival],
        failure: AgreedError | None,
        wants_stop: bool,
    ) -> bool:
        """Whether any rank wants to stop; raises on all ranks what an island has failed with."""
        flags = np.array([failure is not None, wants_stop], np.float64)
        told = np.concatenate([flags, self._changes.magnitudes(arrivals.values())])
        comm.allreduce(told, "max")
        if told[0]:
            raise next(error for error in comm.allgather(failure) if error is not None)
        self._changes.round(arrivals.values(), told[2:])
        return bool(told[1])

    def _combine(
        self, learner: Learner, step: int, stop: int, arrivals: dict[int, Arrival]
    ) -> StepResult:
        """The outer step; returns what all islands have measured."""
        parameters, objective = learner.parameters, learner.objective
        if self._number == 1:
            result = arrivals[0].result
            assert result is not None
        else:
            leaders = self._place.leaders
            mine = {i: each for i, each in arrivals.items() if leaders[i] == learner.comm.rank}
            total = self._changes.total(mine, f"steps {step} to {stop - 1}")
            np.multiply(total.change, 1 / self._number, out=parameters.values)
            parameters.values += self._start["values"]
            np.multiply(total.statistics, 1 / self._number, out=parameters.statistics)
            counts, num_samples = total.counts, total.num_samples
            loss = total.loss / num_samples
            metrics, lr = objective.metrics(loss, counts, num_samples), learner.schedule(stop - 1)
            result = StepResult(step, loss, counts, metrics, num_samples, lr, RankWork(), False)
        self._outer.step(self._start["values"], parameters.values)
        parameters.refresh()
        return result

    def _work(self, arrivals: Iterable[Arrival]) -> RankWork:
        """What this rank did in its own steps."""
        work = RankWork()
        for each in arrivals:
            if each.result is not None:
                work.add(each.result.own)
        if self._place.ranks.size == 1:
            work.bytes_sent, work.wait_seconds = 0, 0.0
        return work

    def _share(self, comm: Communicator, memories: dict[int, Memory]) -> dict[int, Memory]:
        """The memory of every island, on all ranks."""
        shared = {}
        for island, root in enumerate(self._place.leaders):
            memory = memories.get(island) or _copy(self._memories[island])
            for array in memory.values():
                comm.broadcast(array, root)
            shared[island] = memory
        return shared

    def state(self, learner: Learner) -> dict[str, Array]:
        """The outer step and every island: `outer.velocity.NAME`, `island.3.optimizer.m.NAME`."""
        return self._state(learner, range(self._number))

    def replicated(self, learner: Learner) -> dict[str, Array]:
        all_know = self._is_complete or self._number == 1
        return self._state(learner, range(self._number if all_know else 0))

    def _state(self, learner: Learner, islands: range) -> dict[str, Array]:
        named_in = learner.parameters.named_in
        state = named_in(self._outer.state["velocity"], f"{OUTER}velocity")
        state |= {f"{SUM}{OUTER}{name}": array for name, array in self._changes.state.items()}
        for island in islands:
            for name, array in self._memories[island].items():
                where = f"{ISLAND}{island}."
                if name.startswith(SUM):
                    state[f"{SUM}{where}{name.removeprefix(SUM)}"] = array
                else:
                    state |= named_in(array, f"{where}{name}")
        return state

    def compare(self, learner: Learner) -> str:
        untold, self._untold = self._untold, ""
        return "; ".join(filter(None, [untold, self._compare_within(learner)]))

    def _compare_within(self, learner: Learner) -> str:
        """Compares the memory of the ranks that share an island."""
        self._rejoin(learner)
        comm, place, told = learner.comm, self._place, ""
        if comm.size > self._number > 1:
            (island,) = place.islands
            failure = None
            try:
                text = verify(place.ranks, self._memories[island])
                told = f"island {island}, among its ranks: {text}" if text else ""
            except ReplicasDiffer as error:
                failure = ReplicasDiffer(f"island {island}, among its ranks: {error}")
            outcomes = comm.allgather((told, failure))
            for _, failure in outcomes:
                if failure is not None:
                    raise failure
            told = "; ".join(dict.fromkeys(filter(None, (text for text, _ in outcomes))))
        return told

    def complete(self, learner: Learner) -> None:
        if not self._is_complete:
            self._untold = self._compare_within(learner)  # before one of them is heard alone
            own = {island: self._memories[island] for island in self._place.islands}
            for island, memory in self._share(learner.comm, own).items():
                _take(self._memories[island], memory)
            self._is_complete = True


def _model(learner: Learner) -> Memory:
    """The vectors that all islands have alike between two rounds."""
    parameters = learner.parameters
    return {"values": parameters.values, "statistics": parameters.statistics}


def _copy(arrays: Memory) -> Memory:
    return {name: array.copy() for name, array in arrays.items()}


def _take(arrays: Memory, others: Memory) -> None:
    """Copies into `arrays` what `others` have under the same names."""
    for name, array in arrays.items():
        np.copyto(array, others[name])
