"""An objective measured on a set of samples, shared out over ranks, every sample counted once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.sums.fixed_point import WideFixedPoint
from distnet.training.step.feed import Feed


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
    are whole numbers are also the same for any micro-batch size. As in training, losses are divided
    where they arise, so that their sum reaches as far as that of a step.
    """
    objective, num_samples = feed.objective, len(feed.targets)
    if not num_samples:
        raise ValueError("evaluation: found a set without samples, expected at least one")
    starts = range(0, num_samples, micro_batch_size)
    divisor, num_sums = objective.divisor(feed.targets), 1 + len(objective.counts)
    wide = WideFixedPoint(len(starts), num_sums)
    totals = np.zeros(2 * num_sums + 1, np.int64)  # loss and counts, ranks that stopped
    words = totals[:-1].reshape(2, num_sums)
    for m in deal(len(starts), comm.rank, comm.size):
        if wants_stop():
            totals[-1] = 1
            break
        x, targets = feed.evaluation(slice(starts[m], starts[m] + micro_batch_size))
        sums = objective.checked(objective.measure(x, targets))
        sums[0] /= divisor
        wide.add(words, _bounded(sums[np.newaxis], wide.limit))
    comm.allreduce(totals)
    if totals[-1]:
        raise EvaluationStopped
    loss_and_counts = np.zeros(num_sums)
    wide.to_float(words, loss_and_counts)
    return float(loss_and_counts[0]), loss_and_counts[1:]


def least_unknown(num_samples: int, micro_batch_size: int) -> float:
    """What `measure` finds at least for a loss of which a part is no number, or too large."""
    return WideFixedPoint(ceil_divide(num_samples, micro_batch_size), 1).limit


def _bounded(values: Array, limit: float) -> Array:
    """What is beyond the range of a sum says no more than the largest number in it."""
    return np.clip(np.nan_to_num(values, nan=limit), -limit, limit)
