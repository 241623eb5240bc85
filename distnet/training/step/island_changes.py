"""How far the islands have got, as one sum: exact, as that of gradients is, and in few bytes.

Formats of a byte or less hold changes in units that follow from the largest of them, which all
ranks have to know before. What an island loses by that rounding is its *residual*, which it adds to
its next change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.errors import NonFiniteGradient
from distnet.parallel.sums.exact8 import Exact8
from distnet.parallel.sums.own import OwnAllreduce
from distnet.parallel.sums.reducer import CHANGES, make_reducer
from distnet.training.step.diagnosis import TrainingDiverged
from distnet.training.step.result import StepResult
from distnet.training.step.synchronization import Learner

BUCKET_BYTES = 1 << 20  # nothing is computed meanwhile, so messages may be long
RESIDUAL = "residual"

Memory = dict[str, Array]


@dataclass
class Arrival:
    """Where an island is after its steps: how far it has come, and with which memory.

    change: (size,), in the end as it is summed. result: what its steps measured together, None if
    there were no samples for it.
    """

    change: Array
    statistics: Array
    memory: Memory
    result: StepResult | None


class Total(NamedTuple):
    """Sums over all islands; change `(size,)` and statistics are views until the next sum.

    loss: of all samples, not divided.
    """

    change: Array
    statistics: Array
    loss: float
    num_samples: int
    counts: Array


class Changes:
    """The sum over a number of islands: of their changes, and of what they have measured.

    kind: one of CHANGES; exchange: how it travels.
    """

    def __init__(
        self, kind: str, number: int, learner: Learner, exchange: str | OwnAllreduce
    ) -> None:
        parameters = learner.parameters
        self._name_at, self._num_counts = parameters.name_at, len(learner.objective.counts)
        self._change = np.zeros(parameters.values.size, parameters.dtype)
        self._sum = make_reducer(
            kind,
            learner.comm,
            self._change,
            2 + self._num_counts + parameters.statistics.size,
            num_contributions=number,
            bucket_bytes=BUCKET_BYTES,
            exchange=exchange,
            formats=CHANGES,
        )
        format = self._sum.exchange.format
        # Of one island nothing travels, and nothing is rounded.
        self._coarse = format if isinstance(format, Exact8) and number > 1 else None

    @property
    def residual(self) -> Memory:
        """What an island has to keep from one sum to the next, in the beginning."""
        return {} if self._coarse is None else {RESIDUAL: np.zeros_like(self._change)}

    @property
    def state(self) -> dict[str, Array]:
        """See `Reducer.state`."""
        return self._sum.state

    @property
    def bytes_sent(self) -> int:
        """What this rank has handed over to the others for the last sum."""
        return self._sum.bytes_sent

    def magnitudes(self, arrivals: Iterable[Arrival]) -> Array:
        """What `round` has to know, of this rank's islands; its maximum is that of all ranks."""
        if self._coarse is None:
            return np.zeros(0)
        largest = [self._coarse.magnitudes(each.change) for each in arrivals]
        largest.append(self._coarse.magnitudes(np.zeros_like(self._change)))
        told = np.max(largest, axis=0)
        told[np.isnan(told)] = np.inf
        return told

    def round(self, arrivals: Iterable[Arrival], magnitudes: Array) -> None:
        """Makes each change one that can be summed; the rest becomes the island's residual."""
        if self._coarse is None:
            return
        self._coarse.agree_on(magnitudes)
        for each in arrivals:
            sent = self._coarse.rounded(each.change)
            np.subtract(each.change, sent, out=each.memory[RESIDUAL])
            each.change = sent

    def total(self, mine: Mapping[int, Arrival], steps: str) -> Total:
        """The sum over all islands, of which this rank speaks for `mine`; steps: names them.

        Raises TrainingDiverged on all ranks alike.
        """
        self._sum.start(list(mine))
        for island, arrival in mine.items():
            np.copyto(self._change, arrival.change)
            self._sum.add(island, self._tally(arrival))
        try:
            change, tally = self._sum.finish()
        except NonFiniteGradient as error:
            what = "what was measured"
            if error.part == "gradient":
                what = f"the change of {self._name_at(error.index)}"
            raise TrainingDiverged(
                f"{steps}: {what} is {error.value:g} on island "
                f"{error.micro_batch}, expected a finite number; lower --lr"
            ) from error
        (loss, num_samples), counts, statistics = np.split(tally, [2, 2 + self._num_counts])
        return Total(change, statistics, float(loss), int(num_samples), counts.copy())

    def _tally(self, arrival: Arrival) -> Array:
        """The loss, times the number of samples; that number; the counts; the statistics."""
        result, measured = arrival.result, np.zeros(2 + self._num_counts)
        if result is not None:
            measured[:2] = result.loss * result.num_samples, result.num_samples
            measured[2:] = result.counts
        return np.concatenate([measured, arrival.statistics])
