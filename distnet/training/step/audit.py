"""Trust in the arithmetic: some micro-batches of every step are computed a second time.

Processors and memory chips go wrong silently now and then, and a wrong gradient looks like any
other. But a micro-batch has the same gradient, to the last bit, on whichever rank: two ranks that
compute it can be compared exactly. The plan of a step:

1. A keyed draw says which micro-batches are computed twice, and by which other rank (`plan`).
2. Every rank computes its own, then those that it is the second for; the answers of both, a number
   for each, travel with the tally, see `parallel.sums.checked`, which also checks the sum.
3. If two answers differ, all ranks compute that micro-batch once more. A rank that says something
   else than most others, or than it said before, is at fault (`Audit.judge`).

So with three ranks or more it is named. Of two it can be told only if one contradicts itself. An
audit decides no bit of the result, as the number of ranks does not.

Silent data corruption is what large training runs suffer from: Dixit et al. 2021, "Silent data
corruptions at scale", arXiv:2102.11245; Hochschild et al. 2021, "Cores that don't count",
doi:10.1145/3458336.3465297.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import Purpose, stream
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import NonFiniteGradient, RankAtFault
from distnet.parallel.sums.checked import AnswersDiffer, CheckedReducer
from distnet.training.step.replicas import what_differs

Compute = Callable[[int], Array]  # a micro-batch of this step: leaves its gradient, gives its tally


@dataclass(frozen=True)
class Check:
    """A micro-batch that rank `first` computes anyway, and rank `second` a second time."""

    micro_batch: int
    first: int
    second: int


def plan(step: int, seed: int, dealt: Sequence[range], most: int) -> list[Check]:
    """What is computed twice in a step: at most `most` micro-batches, by a keyed draw.

    dealt: the micro-batches of each rank. The second rank is the one that has least to do.
    """
    if len(dealt) < 2:
        return []
    first = {m: rank for rank, mine in enumerate(dealt) for m in mine}
    words = stream(seed, Purpose.AUDIT, step).random_raw(len(first))
    num_tasks = list(map(len, dealt))
    checks = []
    for m in map(int, np.argsort(words, kind="stable")[:most]):
        others = [rank for rank in range(len(dealt)) if rank != first[m]]
        turn = int(words[m]) % len(others)  # of several that have as little to do
        second = min(others[turn:] + others[:turn], key=lambda rank: num_tasks[rank])
        num_tasks[second] += 1
        checks.append(Check(m, first[m], second))
    return checks


class Audit:
    """Compares what ranks compute; see above.

    comm: the ranks of a step. most: micro-batches of a step that are computed twice.
    num_compared: how many were, since the start, and had the same answers.
    """

    def __init__(self, comm: Communicator, reducer: CheckedReducer, seed: int, most: int) -> None:
        self.comm, self.reducer, self.seed, self.most = comm, reducer, seed, most
        self.num_compared = 0
        self._checks: list[Check] = []
        self._has_all = False  # whether all micro-batches of the step are computed twice

    def answer(self, step: int, dealt: Sequence[range], compute: Compute) -> list[int]:
        """Gives this rank's answers, when its own micro-batches are added.

        compute: as this rank has computed its own. Returns those that it computes for the others.
        """
        self._checks = plan(step, self.seed, dealt, self.most)
        self._has_all = len(self._checks) == sum(map(len, dealt))
        computed = []
        for slot, check in enumerate(self._checks):
            if check.first == self.comm.rank:
                self.reducer.tell(slot, 0, self.reducer.answers[check.micro_batch])
            elif check.second == self.comm.rank:
                computed.append(check.micro_batch)
                self.reducer.tell(slot, 1, self.reducer.answer(compute(check.micro_batch)))
        return computed

    def passed(self) -> None:
        """The sums of this step are there, so all answers were the same."""
        self.num_compared += len(self._checks)

    def judge_answers(
        self, error: AnswersDiffer, compute: Compute, state: Mapping[str, Array]
    ) -> RankAtFault:
        """Two ranks have given different answers: says, on all ranks alike, who is at fault."""
        slot, answers = next(iter(error.answers.items()))
        check = self._checks[slot]
        before = dict(zip((check.first, check.second), answers, strict=True))
        fault = self.judge(check.micro_batch, before, compute, state)
        assert fault is not None  # one of the two at least is not what most ranks say now
        return fault

    def judge_value(
        self, error: NonFiniteGradient, compute: Compute, state: Mapping[str, Array]
    ) -> RankAtFault | None:
        """A gradient cannot be summed: None if that is so on whichever rank."""
        return self.judge(error.micro_batch, {error.rank: None}, compute, state)

    def judge(
        self,
        micro_batch: int,
        before: Mapping[int, int | None],
        compute: Compute,
        state: Mapping[str, Array],
    ) -> RankAtFault | None:
        """All ranks compute a micro-batch once more, of which some have given answers `before`.

        state: what every rank should have alike. Returns None if all say what was said before. (An
        answer of None is a gradient that cannot be summed.)
        """
        with self.comm.position.during("audit"):
            again = self.comm.allgather(self.reducer.answer(compute(micro_batch)))
            apart = what_differs(self.comm, state)
        usual, count = Counter(again).most_common(1)[0]
        said = dict(enumerate(again))
        if all(answer == usual for answer in [*again, *before.values()]):
            return None
        wavers = {rank for rank, answer in before.items() if answer != said[rank]}
        wrong = {rank for rank, answer in said.items() if answer != usual}
        has_majority = 2 * count > len(again)
        ranks = sorted(wavers | wrong if has_majority else wavers)
        if not ranks:
            what = f"gradients of micro-batch {micro_batch} differ, and do so again when computed "
            what += "once more, with no majority"
        elif wavers == set(ranks):
            what = f"of micro-batch {micro_batch} it has computed two different gradients"
        else:
            what = f"its gradient of micro-batch {micro_batch} is not that of most others, nor is "
            what += "it when computed once more"
        states = f"states have come apart: {apart}" if apart else "the states of all are equal"
        return RankAtFault(f"{what}; {states}", ranks, has_spread=bool(apart) or not self._has_all)


def name_fault(fault: RankAtFault, comm: Communicator, step: int) -> RankAtFault:
    """The fault with the step that it belongs to, and the names of the processes."""
    who = ", ".join(str(comm.processes[rank]) for rank in fault.ranks)
    does = "computes wrongly"
    who = f"{who} {does}" if who else f"some rank {does}, and it cannot be told which"
    return RankAtFault(f"step {step}: {who}: {fault}", fault.ranks, fault.has_spread)
