"""An objective measured on a set of samples, shared out over ranks, every sample counted once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.sums.fixed_point import FixedPoint
from distnet.training.step.feed import Feed

LOSS_BITS = 24  # losses are summed in multiples of 2^-24


class EvaluationStopped(Exception):  # noqa: N818  no error
    """A rank was asked to stop before it had measured its samples; raised on all ranks."""


def evaluate(
    feed: Feed,
    comm: Communicator,
    micro_batch_size: int,
    wants_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
    """The metrics of the objective of `feed` on all its samples, in evaluation mode.

    wants_stop: whether this rank was asked to stop; then it measures nothing more, and
    EvaluationStopped is raised on all ranks.
    """
    loss, counts = measure(feed, comm, micro_batch_size, wants_stop)
    return feed.objective.metrics(loss, counts, len(feed.targets))


def measure(
    feed: Feed,
    comm: Communicator,
    micro_batch_size: int,
    wants_stop: Callable[[], bool] = lambda: False,
) -> tuple[float, Array]:
    """The loss of all samples, and what the objective of `feed` counts, as float64.

    Counts are summed in integers and losses in fixed point, so the result is the same on any number
    of ranks; what is counted is also the same for any micro-batch size.
    """
    objective, num_samples = feed.objective, len(feed.targets)
    if not num_samples:
        raise ValueError("evaluation: found a set without samples, expected at least one")
    starts = range(0, num_samples, micro_batch_size)
    exact = FixedPoint(len(starts), scale_bits=LOSS_BITS)
    totals = np.zeros(2 + len(objective.counts), np.int64)  # loss, counts, ranks that stopped
    for m in deal(len(starts), comm.rank, comm.size):
        if wants_stop():
            totals[-1] = 1
            break
        x, targets = feed.evaluation(slice(starts[m], starts[m] + micro_batch_size))
        sums = objective.measure(x, targets)
        # A loss beyond the range of the sum says no more than the largest one in it.
        bounded = min(np.nan_to_num(sums[0], nan=exact.limit, posinf=exact.limit), exact.limit)
        exact.add(totals[:1], np.array([bounded]))
        totals[1:-1] += np.rint(sums[1:]).astype(np.int64)
    comm.allreduce(totals)
    if totals[-1]:
        raise EvaluationStopped
    total_loss = np.zeros(1)
    exact.to_float(totals[:1], total_loss)
    loss = float(total_loss[0]) / objective.divisor(feed.targets)
    return loss, totals[1:-1].astype(np.float64)
