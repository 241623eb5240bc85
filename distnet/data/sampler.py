"""Which samples a step works on: a pure function of the seed and the step number.

An epoch visits every sample once, in an order of its own; a global batch is cut into micro-batches
of fixed size, and `deal` says which of them a rank computes. No rank and no loader has a state: the
order of an epoch is the stable argsort of raw words of a counter-based stream (Philox: Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). Called by the training loop. (The book,
section 4.5.2, draws each mini-batch independently; epochs see every sample equally often.)
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# Second word of the Philox key: no other stream of the same seed has this one.
_PURPOSE_ORDER = 4


class Sampler:
    """Cuts the epochs over `num_samples` samples into global batches and these into micro-batches.

    The last batch of an epoch and the last micro-batch of a batch may be short; nothing is padded,
    repeated or left out. `seed` is an integer of 64 bits. Raises ValueError for sizes below 1.
    """

    def __init__(self, num_samples: int, batch_size: int, micro_batch_size: int, seed: int) -> None:
        _check_positive(
            num_samples=num_samples, batch_size=batch_size, micro_batch_size=micro_batch_size
        )
        if not 0 <= seed < 2**64:
            raise ValueError(f"Sampler: found seed {seed}, expected 0 to 2^64 - 1")
        self.num_samples, self.batch_size = num_samples, batch_size
        self.micro_batch_size, self.seed = micro_batch_size, seed
        self.steps_per_epoch = _ceil_divide(num_samples, batch_size)
        self.max_micro_batches = _ceil_divide(min(batch_size, num_samples), micro_batch_size)
        self._epoch, self._order = 0, epoch_order(num_samples, seed, 0)

    def batch(self, step: int) -> Indices:
        """The samples of the global batch of `step` (0-based, over all epochs), read-only."""
        if step < 0:
            raise ValueError(f"Sampler: found step {step}, expected 0 or more")
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.batch_size
        return self._order_of(epoch)[start : start + self.batch_size]

    def micro_batches(self, step: int) -> list[Indices]:
        """`batch(step)` cut into at most `max_micro_batches` pieces, only the last one short."""
        batch, size = self.batch(step), self.micro_batch_size
        return [batch[start : start + size] for start in range(0, len(batch), size)]

    def _order_of(self, epoch: int) -> Indices:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self.num_samples, self.seed, epoch)
        return self._order


def epoch_order(num_samples: int, seed: int, epoch: int) -> Indices:
    """A permutation `(num_samples,)` of all samples, read-only.

    Samples are sorted by one random 64-bit word each; a tie, one chance in 2^64 a pair, keeps their
    order.
    """
    key = np.array([seed, _PURPOSE_ORDER], np.uint64)
    counter = np.array([0, 0, 0, epoch], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(num_samples)
    order = np.argsort(words, kind="stable").astype(np.int64, copy=False)
    order.flags.writeable = False
    return order


def deal(
    num_micro_batches: int, rank: int, size: int, speeds: Sequence[int] | None = None
) -> range:
    """The micro-batches that `rank` of `size` ranks computes: contiguous, balanced, maybe none.

    Over the ranks they make up `range(num_micro_batches)` in order, and no rank has two more than
    another. With `speeds`, whole numbers from 1 for each rank, the last one to be ready is so as
    early as possible.
    """
    if num_micro_batches < 0 or not 0 <= rank < size:
        raise ValueError(
            f"deal: found rank {rank} of {size} for {num_micro_batches} micro-batches, "
            "expected 0 <= rank < size and at least 0 micro-batches"
        )
    if speeds is not None:
        shares = _shares(num_micro_batches, speeds)
        start = sum(shares[:rank])
        return range(start, start + shares[rank])
    return range(rank * num_micro_batches // size, (rank + 1) * num_micro_batches // size)


def _shares(num_micro_batches: int, speeds: Sequence[int]) -> list[int]:
    """How many each rank gets: one after another goes to whoever would be ready with it first.

    That is optimal for equal tasks. Quotients of small whole numbers are rounded alike everywhere.
    """
    shares = [0] * len(speeds)
    ready = [(1 / speed, rank) for rank, speed in enumerate(speeds)]
    heapq.heapify(ready)
    for _ in range(num_micro_batches):
        rank = ready[0][1]
        shares[rank] += 1
        heapq.heapreplace(ready, ((shares[rank] + 1) / speeds[rank], rank))
    return shares


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"Sampler: found {name} {value}, expected 1 or more")


def _ceil_divide(a: int, b: int) -> int:
    return -(-a // b)
