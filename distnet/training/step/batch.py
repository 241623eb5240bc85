"""The batch of one step as a rank sees it: its micro-batches, and a pass over one or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.data.sampler import Sampler
from distnet.nn.own_layers import is_own
from distnet.objectives import Objective
from distnet.training.step.announced import Announced
from distnet.training.step.feed import Feed
from distnet.training.step.group_pass import GroupPass, GroupResult


class Batch:
    """A part of the global batch of `step`, cut into micro-batches; they are the same on all ranks.

    micro_batches: the numbers of their samples. sizes: how many each has. num_samples: all of them.
    """

    def __init__(
        self, objective: Objective, feed: Feed, sampler: Sampler, seed: int, step: int, part: int
    ) -> None:
        self.objective, self.feed = objective, feed
        self._samples = sampler.part(step, part)
        self.num_samples = len(self._samples)
        self.micro_batches = sampler.cut(self._samples)
        self.sizes = list(map(len, self.micro_batches))
        self._divisor: float | None = None  # found when it is asked for
        self.seed, self.step, self.part = seed, step, part
        # No two micro-batches of a step have the same number, and so the same random bits.
        self._first_number = part * sampler.max_micro_batches

    @property
    def divisor(self) -> float:
        """What losses are divided by, so that those of all micro-batches add up to the batch's."""
        if self._divisor is None:
            self._divisor = self.objective.divisor(self.feed.targets[self._samples])
        return self._divisor

    def double(self) -> None:
        """From now on its micro-batches are those of a batch that is twice as large."""
        self._divisor, self.num_samples = 2 * self.divisor, 2 * self.num_samples

    def place(self, m: int) -> MicroBatch:
        """What the random bits of a micro-batch depend on."""
        share = self.sizes[m] / self.num_samples
        return MicroBatch(self.seed, self.step, self._first_number + m, share)

    def inputs(self, m: int) -> Array:
        """The samples of a micro-batch, augmented, as the objective takes them."""
        return self.feed.training(self.micro_batches[m], self.place(m))[0]

    def compute(self, m: int, ready: Callable[[int], None] | None = None) -> Array:
        """Forward and backward: fills the gradients, returns the tally.

        That is what is summed beside them: loss, counts, and what moves running statistics.
        """
        at, parameters = self.place(m), self.objective.parameters
        x, targets = self.feed.training(self.micro_batches[m], at)
        announced = None
        if is_own(self.objective):  # it may not come to all parameters in every micro-batch
            parameters.grads[...] = 0
            parameters.batch_statistics[...] = 0
            ready = announced = Announced(parameters, ready) if ready is not None else None
        sums = self.objective.gradients(x, targets, at, self.divisor, ready)
        if announced is not None:
            announced.check()
        return np.concatenate([self.objective.checked(sums), parameters.batch_statistics])

    def compute_together(
        self, group_pass: GroupPass, some: Sequence[int], meanwhile: Callable[[], None]
    ) -> GroupResult | None:
        """As `compute`, of several at once; None where each has to have a pass of its own."""
        return group_pass(*self._several(some), self.divisor, meanwhile)

    def draw(self, group_pass: GroupPass, some: Sequence[int]) -> None:
        """Makes what a pass over these is going to need of the host; see `GroupPass.draw`."""
        group_pass.draw(*self._several(some))

    def groups(self, mine: Sequence[int], group_pass: GroupPass | None) -> list[list[int]]:
        """Some of the micro-batches, one at a time or as many of one size as a pass may have."""
        if group_pass is None:
            return [[m] for m in mine]
        groups = []
        for size, alike in groupby(mine, key=self.sizes.__getitem__):
            numbers, most = list(alike), group_pass.largest_group(size)
            groups += [numbers[start : start + most] for start in range(0, len(numbers), most)]
        return groups

    def _several(self, some: Sequence[int]) -> tuple[list[Array], list[MicroBatch]]:
        return [self.micro_batches[m] for m in some], [self.place(m) for m in some]
