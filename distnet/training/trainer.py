"""One step of training: the same lines in one process and on every one of many ranks.

sampler -> micro-batches -> for each of mine: pixels, forward, loss, backward, sum -> reduce ->
optimizer. The number of ranks decides who computes which micro-batch and nothing else: each one is
computed alike everywhere, and the sum of the reducer does not depend on grouping or order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.data.sampler import Sampler
from distnet.objectives import Objective
from distnet.optim.optimizers import Optimizer
from distnet.optim.schedules import Schedule
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.errors import AgreedError, NonFiniteGradient
from distnet.parallel.sums.reducer import REDUCTIONS, Reducer, make_reducer
from distnet.training.checkpoint import SUM
from distnet.training.diagnosis import bad_array, bad_sample, describe, first_bad_layer
from distnet.training.feed import Feed
from distnet.training.replicas import verify


@dataclass(frozen=True)
class StepResult:
    """What a step measured on its global batch before it changed the parameters.

    loss, counts, metrics: those of the objective. seconds: how long this rank took.
    stop: whether any rank was asked to stop, and all shall, after this step.
    """

    step: int
    loss: float
    counts: Array
    metrics: dict[str, float]
    num_samples: int
    lr: float
    seconds: float = field(compare=False)
    stop: bool


class TrainingDiverged(AgreedError):  # noqa: N818  the condition is the name
    """A number is not finite, or too large to be summed."""


class Trainer:
    """The state of a run (parameters, statistics, optimizer) and the step that advances it.

    memory: arrays that the next step depends on as well, such as a replay, which somebody else
    changes in place, on all ranks alike.
    speeds: those of all ranks, if micro-batches shall be dealt by them; see `parallel.dealing`.
    mine: the micro-batches of the last step that this rank computed.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        sampler: Sampler,
        feed: Feed,
        reducer: Reducer,
        comm: Communicator,
        seed: int,
        memory: Mapping[str, Array] | None = None,
    ) -> None:
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.parameters = objective.parameters
        self.sampler, self.feed, self.reducer = sampler, feed, reducer
        self.comm, self.seed = comm, seed
        self.memory = dict(memory or {})
        self.speeds: Sequence[int] | None = None
        self.mine = range(0)

    def step(self, step: int, wants_stop: Callable[[], bool] = lambda: False) -> StepResult:
        """Advances from the state after `step` updates to the one after `step + 1`.

        wants_stop: whether this rank was asked to stop; called as late as the others can still
        learn it from this step.

        Raises TrainingDiverged, on all ranks alike; the state is then still the old one.
        """
        began = time.perf_counter()
        objective, reducer, parameters = self.objective, self.reducer, self.parameters
        self.comm.position.begin_step(step)
        micro_batches = self.sampler.micro_batches(step)
        num_samples = sum(len(samples) for samples in micro_batches)
        divisor = objective.divisor(self.feed.targets[self.sampler.batch(step)])
        mine = self.mine = self._deal(len(micro_batches))

        reducer.start(mine)
        for m in mine:
            at = MicroBatch(self.seed, step, m, share=len(micro_batches[m]) / num_samples)
            x, targets = self.feed.training(micro_batches[m], at)
            ready = reducer.ready if m == mine[-1] else None  # nothing is sent before the last
            sums = objective.gradients(x, targets, at, divisor, ready)
            reducer.add(m, np.concatenate([sums, parameters.batch_statistics]))
        grads, sums = self._reduce(step, wants_stop())

        lr = self.schedule(step)
        self.optimizer.step(parameters.values, grads, lr, t=step + 1)
        loss, counts, statistics = self._split(sums)
        parameters.update_statistics(statistics)
        parameters.refresh()
        return StepResult(
            step=step,
            loss=loss,
            counts=counts,
            metrics=objective.metrics(loss, counts, num_samples),
            num_samples=num_samples,
            lr=lr,
            seconds=time.perf_counter() - began,
            stop=reducer.num_flags > 0,
        )

    def _deal(self, num_micro_batches: int) -> range:
        """Those that this rank computes. Speeds of another group of ranks say nothing."""
        rank, size = self.comm.rank, self.comm.size
        known = self.speeds is not None and len(self.speeds) == size
        return deal(num_micro_batches, rank, size, self.speeds if known else None)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While it lasts, the parameters are those to be evaluated, such as an average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def use_evaluated(self) -> None:
        """After the last step: the parameters are those that were evaluated, for good."""
        self._exchange()

    def _exchange(self) -> None:
        """The parameters and the values to be evaluated change places."""
        self.optimizer.exchange(self.parameters.values)
        self.parameters.refresh()

    def state(self) -> dict[str, Array]:
        """All that the next step depends on, and all ranks have alike: arrays by name, as views.

        `params.NAME`, `statistics.NAME`; `optimizer.MOMENT.NAME`, in the shape of the parameter, or
        `optimizer.VECTOR` for what belongs to no parameter; `memory.NAME`; `sum.NAME` of the
        gradient sum.
        """
        parameters = self.parameters
        state = {f"params.{name}": array for name, array in parameters.named().items()}
        for moment, vector in self.optimizer.state.items():
            if vector.shape == parameters.values.shape:
                slots = parameters.slots
                state |= {f"optimizer.{moment}.{slot.name}": slot.of(vector) for slot in slots}
            else:
                state[f"optimizer.{moment}"] = vector
        statistics = parameters.named_statistics().items()
        state |= {f"statistics.{name}": array for name, array in statistics}
        state |= {f"memory.{name}": array for name, array in self.memory.items()}
        sums = self.reducer.state.items()
        return state | {f"{SUM}{name}": array for name, array in sums}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Takes `state`, which has the names and shapes of this trainer's own."""
        for name, array in self.state().items():
            np.copyto(array, state[name])
        self.parameters.refresh()

    def adopt(self, root: int) -> None:
        """Takes the state of rank `root`; if interrupted by RankLost, it is still the old one."""
        received = {name: array.copy() for name, array in self.state().items()}
        for array in received.values():
            self.comm.broadcast(array, root)
        self.comm.confirm()
        self.restore(received)

    def verify(self, num_done: int) -> str:
        """Compares the replicas after `num_done` updates; see `verify.verify`.

        Raises ReplicasDiffer, and TrainingDiverged if their numbers are not finite.
        """
        arrays = self.state()
        repaired = verify(self.comm, arrays)
        if repaired:
            self.parameters.refresh()
        if bad := bad_array(arrays):
            raise TrainingDiverged(f"step {num_done - 1}: {bad} is not finite; lower --lr")
        return repaired

    def _split(self, sums: Array) -> tuple[float, Array, Array]:
        """A tally: the loss, the counts, the batch statistics. (A run keeps the counts.)"""
        stop = 1 + len(self.objective.counts)
        return float(sums[0]), sums[1:stop].copy(), sums[stop:]

    def _reduce(self, step: int, flag: bool) -> tuple[Array, Array]:
        """The sums over all micro-batches of all ranks."""
        try:
            return self.reducer.finish(flag)
        except NonFiniteGradient as error:
            text = self._diagnosis(step, error)
            raise TrainingDiverged(f"step {step}: {text}") from error

    def _diagnosis(self, step: int, error: NonFiniteGradient) -> str:
        """Found by the rank where the error came up, for all."""
        text = ""
        if error.rank == self.comm.rank:
            samples = self.sampler.micro_batches(step)[error.micro_batch]
            text = bad_sample(self.feed.inputs[samples], self.feed.targets[samples], samples)
        if error.rank == self.comm.rank and not text:
            at = MicroBatch(self.seed, step, error.micro_batch)
            x, _ = self.feed.training(samples, at)
            text = describe(self.objective, error, first_bad_layer(self.objective, x, at))
        return self.comm.allgather(text)[error.rank]


def check_takes_part(
    arithmetic: Arithmetic,
    objective: Objective,
    feed: Feed,
    optimizer: Optimizer,
    schedule: Schedule,
    reduction: str,
) -> None:
    """Raises ValueError if a part of training would not do in the arithmetic of the network."""
    arithmetic.check(type(objective), type(objective).__name__)
    arithmetic.check(type(optimizer), type(optimizer).__name__)
    arithmetic.check(schedule, "the learning rate")
    if feed.augment is not None:
        arithmetic.check(feed.augment, "the augmentation")
    if optimizer.arithmetic.rounds != arithmetic.rounds:
        raise ValueError(
            f"{type(optimizer).__name__}: found arithmetic {optimizer.arithmetic.name}, expected "
            f"that of the network, {arithmetic.name}"
        )
    if arithmetic.rounds and not REDUCTIONS[reduction].exact:
        raise ValueError(
            f"reduction {reduction}: its sums depend on the ranks, expected an exact one in "
            "portable arithmetic"
        )


def make_trainer(
    objective: Objective,
    feed: Feed,
    *,
    optimizer: Optimizer,
    schedule: Schedule,
    batch_size: int = 0,
    micro_batch_size: int = 0,
    sampler: Sampler | None = None,
    seed: int,
    comm: Communicator,
    memory: Mapping[str, Array] | None = None,
    reduction: str = "exact",
    exchange: str = "auto",
    bucket_bytes: int = 0,
    reducing: Communicator | None = None,
) -> Trainer:
    """The parts of training, put together: the one place where that is done.

    batch_size: samples of a step, over all ranks; sampler: in its place, another than the one that
    visits all samples in each epoch. memory: see `Trainer`. reduction: how gradients are summed, a
    key of REDUCTIONS; exchange: how the sums travel, a key of EXCHANGES. reducing: the ranks over
    which they are summed, if not all of `comm`.
    """
    parameters = objective.parameters
    check_takes_part(parameters.arithmetic, objective, feed, optimizer, schedule, reduction)
    if sampler is None:
        sampler = Sampler(len(feed.targets), batch_size, micro_batch_size, seed)
    reducer = make_reducer(
        reduction,
        comm if reducing is None else reducing,
        parameters.grads,
        1 + len(objective.counts) + parameters.batch_statistics.size,
        num_contributions=sampler.max_micro_batches,
        bucket_bytes=bucket_bytes,
        exchange=exchange,
        result_dtype=parameters.dtype,
    )
    return Trainer(
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        sampler=sampler,
        feed=feed,
        reducer=reducer,
        comm=comm,
        seed=seed,
        memory=memory,
    )
