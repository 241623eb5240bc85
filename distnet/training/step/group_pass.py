"""A pass of several micro-batches of a rank at once: what the trainer asks of it.

`device_pass` makes such passes on a GPU, `stacked_pass` on the CPU. What a pass is made of does not
change its bits: those of its micro-batches one by one, and of their sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.parallel.sums.reducer import Reducer


@dataclass(frozen=True)
class GroupResult(ABC):
    """Sums `(G, S)` of G micro-batches, as `Objective.gradients` has them, with statistics.

    Their gradients are as the pass has them.
    """

    sums: Array

    @abstractmethod
    def add_to(self, reducer: Reducer, micro_batches: Sequence[int]) -> None:
        """Completes these micro-batches, the next of a rank's."""


class GroupPass(ABC):
    """Forward, loss and backward of several micro-batches of one size, a group."""

    @abstractmethod
    def largest_group(self, num_samples: int) -> int:
        """How many micro-batches of so many samples one pass may have."""

    @abstractmethod
    def __call__(
        self,
        samples: Sequence[Array],
        at: Sequence[MicroBatch],
        divisor: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> GroupResult | None:
        """Over G micro-batches of the samples with these numbers, `(N,)` each.

        meanwhile: called once, if somebody else computes while it runs. Returns None where it is
        to be done micro-batch by micro-batch, which tells what is wrong with one. The result is
        overwritten by the next pass.
        """

    @abstractmethod
    def draw(self, samples: Sequence[Array], at: Sequence[MicroBatch]) -> None:
        """Makes beforehand what a pass over these is going to need of the host, if it can."""
