"""The parts of training, put together: the one place where that is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array
from distnet.data.sampler import Sampler
from distnet.device.body import OnDevice
from distnet.nn.own_layers import check_calls, is_own
from distnet.objectives import Objective
from distnet.optim.optimizers import Optimizer
from distnet.optim.schedules import Schedule
from distnet.parallel.agreement import together
from distnet.parallel.communicator import Communicator
from distnet.parallel.errors import ExchangeError
from distnet.parallel.sums.checked import CheckedReducer, make_checked_reducer
from distnet.parallel.sums.own import OwnAllreduce
from distnet.parallel.sums.reducer import REDUCTIONS, Reducer, make_reducer
from distnet.training.step.audit import Audit
from distnet.training.step.device_loss import body_of
from distnet.training.step.device_update import (
    DeviceExact,
    DeviceOptimizer,
    sums_on,
    trains_alone,
)
from distnet.training.step.feed import Feed
from distnet.training.step.islands import Islands, LocalSteps, deal_islands
from distnet.training.step.trainer import Trainer

T = TypeVar("T")


@dataclass(frozen=True)
class Sums:
    """How the gradients of a step are summed, whichever ranks share it; see `make_trainer`.

    num_contributions: micro-batches of a step at most.
    """

    objective: Objective
    num_contributions: int
    reduction: str
    exchange: str | OwnAllreduce
    bucket_bytes: int

    def over(self, ranks: Communicator) -> Reducer:
        """The reducer of these ranks."""
        return make_reducer(self.reduction, ranks, **self._shared)

    def checked(self, ranks: Communicator, num_slots: int) -> CheckedReducer:
        """One that checks its sums, of micro-batches of which so many are computed twice."""
        num_slots = min(num_slots, self.num_contributions)
        return make_checked_reducer(self.reduction, ranks, num_slots=num_slots, **self._shared)

    def on_device(self, ranks: Communicator, body: OnDevice) -> Reducer:
        """One whose sums never leave a device, for a process that trains alone."""
        parameters = self.objective.parameters
        format = DeviceExact(parameters.values.size, self.num_contributions, body.device)
        format.result_dtype = parameters.dtype
        way, size = sums_on(body.device, ranks, format), self._tally_size
        return Reducer(ranks, way, parameters.grads, size, bucket_bytes=way.total.nbytes)

    @property
    def _shared(self) -> dict[str, Any]:
        """What both kinds of reducers on hosts are told."""
        return {
            "gradients": self.objective.parameters.grads,
            "tally_size": self._tally_size,
            "num_contributions": self.num_contributions,
            "bucket_bytes": self.bucket_bytes,
            "exchange": self.exchange,
            "result_dtype": self.objective.parameters.dtype,
        }

    @property
    def _tally_size(self) -> int:
        """Numbers that are summed beside the gradients: the loss, counts and statistics."""
        objective = self.objective
        return 1 + len(objective.counts) + objective.parameters.batch_statistics.size


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
    if repr(optimizer.arithmetic) != repr(arithmetic):
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
    exchange: str | OwnAllreduce = "auto",
    bucket_bytes: int = 0,
    reducing: Communicator | None = None,
    local: LocalSteps | None = None,
    audit: int = 0,
) -> Trainer:
    """A trainer of the parts that are given, and those that go with them.

    batch_size: samples of a step, over all ranks; sampler: in its place, another than the one that
    visits all samples in each epoch. memory: see `Trainer`. reduction: how gradients are summed, a
    key of REDUCTIONS; exchange: how the sums travel, a key of EXCHANGES or a user's all-reduce.
    reducing: the ranks over which they are summed, if not all of `comm`. local: how rarely ranks
    synchronise; None: at every step. audit: micro-batches of a step that two ranks compute, in
    exact reductions and not with `local`. Raises RankError on all ranks for an exchange that some
    cannot have.
    """
    if is_own(objective):
        check_calls(objective, Objective, "gradients", "measure")
    parameters = objective.parameters
    check_takes_part(parameters.arithmetic, objective, feed, optimizer, schedule, reduction)
    if local is not None:
        _check_suits_islands(parameters.arithmetic, audit, reducing)
    if sampler is None:
        num_parts = 1 if local is None else local.islands
        sampler = Sampler(len(feed.targets), batch_size, micro_batch_size, seed, num_parts)
    sums = Sums(objective, sampler.max_micro_batches, reduction, exchange, bucket_bytes)
    ranks = comm if local is None else deal_islands(comm, local.islands).ranks
    summing = ranks if reducing is None else reducing
    is_usual = reduction == "exact" and exchange == "auto" and local is None and not audit
    body = body_of(objective) if is_usual and trains_alone(comm, optimizer) else None
    if body is not None:
        optimizer = DeviceOptimizer(optimizer, parameters, body)
        reducer = sums.on_device(summing, body)
    elif audit:
        reducer = _agreed(comm, exchange, lambda: sums.checked(summing, audit))
    else:
        reducer = _agreed(comm, exchange, lambda: sums.over(summing))
    trainer = Trainer(
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        sampler=sampler,
        feed=feed,
        reducer=reducer,
        comm=comm,
        seed=seed,
        memory=memory,
        ranks=ranks,
    )
    if local is not None:
        islands = _agreed(comm, exchange, lambda: Islands(local, trainer, sums.over, exchange))
        trainer.synchronization = islands
    if isinstance(reducer, CheckedReducer):
        trainer.audit = Audit(comm, reducer, seed, audit)
    return trainer


def _check_suits_islands(arithmetic: Arithmetic, audit: int, reducing: Communicator | None) -> None:
    """Raises ValueError for what ranks that have only the state of their own islands cannot do."""
    if audit:
        raise ValueError("audit: found islands, whose ranks have no other rank's state")
    if reducing is not None:
        raise ValueError("reducing: found islands, which say themselves who sums; leave it out")
    if arithmetic.stores:
        raise ValueError(
            f"islands: found {arithmetic.name}, whose masters they do not share; use float32"
        )


def _agreed(comm: Communicator, exchange: str | OwnAllreduce, make: Callable[[], T]) -> T:
    """What `make` returns; RankError on all ranks if some have no way for their sums as asked."""
    if exchange == "auto":
        return make()
    return together(comm, make, (ExchangeError,))
