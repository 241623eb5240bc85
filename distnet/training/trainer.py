"""One step of training: the same lines in one process and on every one of many ranks.

sampler -> micro-batches -> for each of mine: pixels, forward, loss, backward, sum -> reduce ->
optimizer. The number of ranks decides who computes which micro-batch and nothing else: each one is
computed alike everywhere, and the sum of the reducer does not depend on grouping or order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from distnet.data.sampler import Sampler, deal
from distnet.nn.layout import Array
from distnet.nn.network import Network
from distnet.nn.random import Training
from distnet.optim.optimizers import Optimizer
from distnet.optim.schedules import Schedule
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import AgreedError, NonFiniteGradient
from distnet.parallel.reducer import Reducer
from distnet.training.checkpoint import Checkpoint
from distnet.training.feed import Feed

TALLY = 2  # loss and correct predictions; the network's batch statistics follow


@dataclass(frozen=True)
class StepResult:
    """What a step measured on its global batch before it changed the parameters."""

    step: int
    loss: float
    num_correct: int
    num_samples: int
    lr: float


class TrainingDiverged(AgreedError):  # noqa: N818  the condition is the name
    """A gradient, the loss or a statistic is not finite, or too large to be summed."""


class Trainer:
    """The state of a run (parameters, statistics, optimizer) and the step that advances it."""

    def __init__(
        self,
        *,
        network: Network,
        optimizer: Optimizer,
        schedule: Schedule,
        sampler: Sampler,
        feed: Feed,
        reducer: Reducer,
        comm: Communicator,
        seed: int,
    ) -> None:
        self.network, self.optimizer, self.schedule = network, optimizer, schedule
        self.sampler, self.feed, self.reducer = sampler, feed, reducer
        self.comm, self.seed = comm, seed
        self._tally = np.zeros(TALLY + network.statistics.size)

    def step(self, step: int) -> StepResult:
        """Advances from the state after `step` updates to the one after `step + 1`.

        Raises TrainingDiverged, on all ranks alike; the state is then still the old one.
        """
        network, reducer = self.network, self.reducer
        micro_batches = self.sampler.micro_batches(step)
        num_samples = sum(len(samples) for samples in micro_batches)
        mine = deal(len(micro_batches), self.comm.rank, self.comm.size)
        last = mine[-1] if mine else None

        reducer.start()
        for m in mine:
            share = len(micro_batches[m]) / num_samples
            train = Training(self.seed, step, m, share)
            x, labels = self.feed.training(micro_batches[m], train)
            ready = partial(reducer.ready, network.grads) if m == last else None
            loss, correct = network.loss_and_gradients(x, labels, train, num_samples, ready)
            self._tally[:TALLY] = loss, correct
            self._tally[TALLY:] = network.batch_statistics
            if m != last:
                reducer.add(network.grads, self._tally, m)
        grads, sums = self._reduce(step, last)

        lr = self.schedule(step)
        self.optimizer.step(network.values, grads, lr, t=step + 1)
        network.update_statistics(sums[TALLY:])
        network.refresh()
        return StepResult(step, float(sums[0]), round(sums[1]), num_samples, lr)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes the state that a checkpoint holds; the next step is number `checkpoint.step`."""
        self.network.load_values(checkpoint.params)
        for name, vector in self.network.named_statistics().items():
            np.copyto(vector, checkpoint.statistics[name])
        for name, vector in self.optimizer.state.items():
            np.copyto(vector, checkpoint.optimizer[name])

    def _reduce(self, step: int, last: int | None) -> tuple[Array, Array]:
        """The sums over all micro-batches of all ranks; `last` is mine that is not yet added."""
        try:
            if last is None:
                return self.reducer.finish(None, None)
            return self.reducer.finish(self.network.grads, self._tally, last)
        except NonFiniteGradient as error:
            raise TrainingDiverged(self._diagnosis(step, error)) from error

    def _diagnosis(self, step: int, error: NonFiniteGradient) -> str:
        tally = ["the loss", "the number of correct predictions"]
        tally += [s.name for s in self.network.statistic_slots for _ in range(s.start, s.stop)]
        in_gradient = error.part == "gradient"
        name = self.network.name_at(error.index) if in_gradient else tally[error.index]
        what = f"the gradient of {name}" if in_gradient else name
        return (
            f"step {step}: {what} is {error.value:g} in micro-batch {error.micro_batch} on rank "
            f"{error.rank}, expected a finite number of at most {error.limit:g}; lower --lr"
        )
