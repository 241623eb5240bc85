"""An objective measured on a set of samples, shared out over ranks, every sample counted once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.sums.fixed_point import FixedPoint, WideFixedPoint
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

    Both are summed in fixed point, so the result is the same on any number of ranks; counts that
    are whole numbers are also the same for any micro-batch size.
    """
    objective, num_samples = feed.objective, len(feed.targets)
    if not num_samples:
        raise ValueError("evaluation: found a set without samples, expected at least one")
    starts = range(0, num_samples, micro_batch_size)
    num_counts = len(objective.counts)
    exact, wide = FixedPoint(len(starts), LOSS_BITS), WideFixedPoint(len(starts), num_counts)
    totals = np.zeros(2 + 2 * num_counts, np.int64)  # loss, counts, ranks that stopped
    counts = totals[1:-1].reshape(2, num_counts)
    for m in deal(len(starts), comm.rank, comm.size):
        if wants_stop():
            totals[-1] = 1
            break
        x, targets = feed.evaluation(slice(starts[m], starts[m] + micro_batch_size))
        sums = objective.checked(objective.measure(x, targets))
        exact.add(totals[:1], _bounded(sums[:1], exact.limit))
        wide.add(counts, _bounded(sums[np.newaxis, 1:], wide.limit))
    comm.allreduce(totals)
    if totals[-1]:
        raise EvaluationStopped
    total_loss, total_counts = np.zeros(1), np.zeros(num_counts)
    exact.to_float(totals[:1], total_loss)
    wide.to_float(counts, total_counts)
    return float(total_loss[0]) / objective.divisor(feed.targets), total_counts


def _bounded(values: Array, limit: float) -> Array:
    """What is beyond the range of a sum says no more than the largest number in it."""
    return np.clip(np.nan_to_num(values, nan=limit), -limit, limit)
