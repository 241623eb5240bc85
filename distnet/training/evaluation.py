"""Loss and accuracy on a test set, shared out over the ranks, every sample counted once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distnet.nn.network import Network
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.sums.fixed_point import FixedPoint
from distnet.training.feed import Feed


@dataclass(frozen=True)
class Evaluation:
    """`num_correct` of `num_samples` predictions are right; `loss` is the mean cross-entropy."""

    num_correct: int
    num_samples: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Between 0 and 1."""
        return self.num_correct / self.num_samples


def evaluate(network: Network, feed: Feed, comm: Communicator, micro_batch_size: int) -> Evaluation:
    """Evaluates `network` on all samples of `feed`.

    Correct predictions are counted in integers and losses summed in fixed point, so the result is
    the same on any number of ranks; the count also for any micro-batch size.
    """
    num_samples = len(feed.labels)
    starts = range(0, num_samples, micro_batch_size)
    exact = FixedPoint(len(starts), scale_bits=24)
    loss_sum, num_correct = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for m in deal(len(starts), comm.rank, comm.size):
        x, labels = feed.evaluation(slice(starts[m], starts[m] + micro_batch_size))
        loss, correct = network.evaluate(x, labels)
        # A loss beyond the range of the sum says no more than the largest one in it.
        bounded = min(np.nan_to_num(loss, nan=exact.limit, posinf=exact.limit), exact.limit)
        exact.add(loss_sum, np.array([bounded]))
        num_correct += correct
    totals = np.concatenate([loss_sum, num_correct])
    comm.allreduce(totals)
    total_loss = np.zeros(1)
    exact.to_float(totals[:1], total_loss)
    return Evaluation(int(totals[1]), num_samples, float(total_loss[0]) / num_samples)
