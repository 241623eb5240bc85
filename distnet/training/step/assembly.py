"""The parts of training, put together: the one place where that is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array
from distnet.data.sampler import Sampler
from distnet.objectives import Objective
from distnet.optim.optimizers import Optimizer
from distnet.optim.schedules import Schedule
from distnet.parallel.communicator import Communicator
from distnet.parallel.sums.checked import make_checked_reducer
from distnet.parallel.sums.own import OwnAllreduce
from distnet.parallel.sums.reducer import REDUCTIONS, Reducer, make_reducer
from distnet.training.step.audit import Audit
from distnet.training.step.device_pass import body_of
from distnet.training.step.device_update import (
    DeviceExact,
    DeviceOptimizer,
    sums_on,
    trains_alone,
)
from distnet.training.step.feed import Feed
from distnet.training.step.islands import Islands, LocalSteps, deal_islands
from distnet.training.step.trainer import Trainer

R = TypeVar("R", bound=Reducer)


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
    exact reductions and not with `local`.
    """
    parameters = objective.parameters
    check_takes_part(parameters.arithmetic, objective, feed, optimizer, schedule, reduction)
    num_parts = 1
    if local is not None:
        num_parts = local.islands
    if sampler is None:
        sampler = Sampler(len(feed.targets), batch_size, micro_batch_size, seed, num_parts)
    num_contributions = sampler.max_micro_batches
    tally_size = 1 + len(objective.counts) + parameters.batch_statistics.size

    def with_parts(make: Callable[..., R], ranks: Communicator, **settings: Any) -> R:
        return make(
            reduction,
            ranks,
            parameters.grads,
            tally_size,
            num_contributions=num_contributions,
            bucket_bytes=bucket_bytes,
            exchange=exchange,
            result_dtype=parameters.dtype,
            **settings,
        )

    plain = reduction == "exact" and exchange == "auto" and local is None and not audit
    body = body_of(objective) if plain and trains_alone(comm, optimizer) else None
    if body is not None:
        optimizer = DeviceOptimizer(optimizer, parameters, body)

    def reducer_of(ranks: Communicator) -> Reducer:
        if body is None:
            return with_parts(make_reducer, ranks)
        format = DeviceExact(parameters.values.size, num_contributions, body.device)
        format.result_dtype = parameters.dtype
        way = sums_on(body.device, ranks, format)
        return Reducer(ranks, way, parameters.grads, tally_size, bucket_bytes=way.total.nbytes)

    ranks = (reducing or comm) if local is None else deal_islands(comm, num_parts).ranks
    audited = None
    if audit:
        if local is not None:
            raise ValueError("audit: found islands, whose ranks have no other rank's state")
        audited = with_parts(make_checked_reducer, ranks, num_slots=min(audit, num_contributions))
    trainer = Trainer(
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        sampler=sampler,
        feed=feed,
        reducer=audited or reducer_of(ranks),
        comm=comm,
        seed=seed,
        memory=memory,
        ranks=ranks if local is not None else comm,
    )
    if local is not None:
        trainer.synchronization = Islands(local, trainer, reducer_of, exchange)
    if audited is not None:
        trainer.audit = Audit(comm, audited, seed, audit)
    return trainer
