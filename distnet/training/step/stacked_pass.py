"""A pass of several micro-batches at once on the CPU, for small networks; see `nn.stacks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch
from distnet.data.sampler import Sampler
from distnet.nn.layers.activations import LeakyReLU
from distnet.nn.network import Network
from distnet.nn.stacks import all_layers, is_patched, is_stackable, stacked
from distnet.objectives import Classification, Objective
from distnet.parallel.sums.fixed_point import FixedPoint
from distnet.parallel.sums.reducer import Reducer
from distnet.training.step.feed import Feed
from distnet.training.step.group_pass import GroupPass, GroupResult

# Of a pass: numbers in its gradients, which bounds its memory, and micro-batches.
MOST_NUMBERS, MOST_MICRO_BATCHES = 1 << 19, 16


@dataclass(frozen=True)
class StackResult(GroupResult):
    """gradients: `(k, P)`, of k micro-batches."""

    gradients: Array

    def add_to(self, reducer: Reducer, micro_batches: Sequence[int]) -> None:
        reducer.add_stack(micro_batches, self.gradients, self.sums)


class StackedPass(GroupPass):
    """The passes of a classifier over stacks of micro-batches of `rows` samples."""

    def __init__(self, objective: Classification, feed: Feed, sampler: Sampler) -> None:
        self.objective, self.feed, self.rows = objective, feed, sampler.micro_batch_size
        fitting = MOST_NUMBERS // max(1, objective.parameters.size)
        self.most = min(MOST_MICRO_BATCHES, sampler.max_micro_batches, fitting)
        self._layers = list(all_layers(objective.network.body))
        self._network: Network | None = None  # made when it is used first
        self._leaky: list[tuple[LeakyReLU, LeakyReLU]] = []  # ours, and those of that network

    def largest_group(self, num_samples: int) -> int:
        """Short micro-batches come one by one."""
        return self.most if num_samples == self.rows else 1

    def __call__(
        self,
        samples: Sequence[Array],
        at: Sequence[MicroBatch],
        divisor: float,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> StackResult | None:
        k, n = len(samples), self.rows
        if len(samples[0]) < n or any(map(is_patched, self._layers)):
            return None
        network, loss = self._stacked(), self.objective.loss
        inputs, labels = self.feed.group(samples, at)
        if inputs.shape[1:] != network.input_shape:
            return None
        logits = network.forward(network.as_input(inputs, copy=False), at[0], copy=False)
        try:
            losses = loss.losses(logits, labels, divisor)
        except DataError:  # it names the first wrong label of a micro-batch
            return None
        sums = np.empty((k, 2))
        sums[:, 0] = loss.totals(losses.reshape(k, n))
        is_correct = (logits.argmax(axis=1) == labels).reshape(k, n)
        np.add.reduce(is_correct, axis=1, dtype=np.float64, out=sums[:, 1])
        network.backward(loss.backward())
        return StackResult(sums, network.parameters.grads[:k])

    def draw(self, samples: Sequence[Array], at: Sequence[MicroBatch]) -> None:
        """Nothing: what a pass needs is made when it begins."""

    def _stacked(self) -> Network:
        """The network that takes stacks, with the parameters, and what can be set, as it is now."""
        network = self._network
        if network is None or network.parameters.place is not self.objective.parameters.place:
            network = stacked(self.objective.network, self.rows, self.most)
            self._network = network
            own, twins = map(_leaky_of, (self.objective.network, network))
            self._leaky = list(zip(own, twins, strict=True))
        for leaky, twin in self._leaky:
            twin.slope = leaky.slope
        return network


def _leaky_of(network: Network) -> list[LeakyReLU]:
    return [leaf for leaf in network.body.leaves() if isinstance(leaf, LeakyReLU)]


def stacked_pass(
    objective: Objective, feed: Feed, numbers: FixedPoint | None, sampler: Sampler
) -> StackedPass | None:
    """The passes of an objective whose network takes several micro-batches at once, or None.

    numbers: in which sums of several may be made; None: they may not. Classes derived from ours may
    do something else with a micro-batch: theirs come one by one.
    """
    if type(objective) is not Classification or type(feed) is not Feed or numbers is None:
        return None
    made = StackedPass(objective, feed, sampler)
    return made if made.most and is_stackable(objective.network) else None
