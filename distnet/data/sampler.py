"""Which samples a step works on: a pure function of the seed and the step number.

An epoch visits every sample once, in an order of its own; a global batch is cut into micro-batches
of fixed size (`parallel.dealing`: which of them a rank computes). No loader has a state: the
order of an epoch is the stable argsort of raw words of a counter-based stream (Philox: Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). Called by the training loop. (The book,
section 4.5.2, draws each mini-batch independently; epochs see every sample equally often.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from distnet.base.arrays import ceil_divide
from distnet.base.keys import Purpose, integers, stream

Indices = NDArray[np.int64]


class Sampler:
    """Cuts the epochs over `num_samples` samples into global batches and these into micro-batches.

    The last batch of an epoch and the last micro-batch of a batch may be short; nothing is padded,
    repeated or left out. `seed` is an integer of 64 bits. Raises ValueError for sizes below 1.

    With `num_parts` a batch is cut into so many parts first, for learners that share the data; of a
    batch that has fewer samples some parts are empty.

    max_micro_batches: the most that a part of a batch has.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        num_parts: int = 1,
    ) -> None:
        sizes = {"batch_size": batch_size, "micro_batch_size": micro_batch_size}
        _check_positive(num_samples=num_samples, **sizes, num_parts=num_parts)
        if not 0 <= seed < 2**64:
            raise ValueError(f"Sampler: found seed {seed}, expected 0 to 2^64 - 1")
        self.num_samples, self.batch_size = num_samples, batch_size
        self.micro_batch_size, self.seed = micro_batch_size, seed
        self.steps_per_epoch = ceil_divide(num_samples, batch_size)
        self.num_parts = num_parts
        largest_part = ceil_divide(min(batch_size, num_samples), num_parts)
        self.max_micro_batches = ceil_divide(largest_part, micro_batch_size)
        self._epoch, self._order = 0, epoch_order(num_samples, seed, 0)

    def batch(self, step: int) -> Indices:
        """The samples of the global batch of `step` (0-based, over all epochs), read-only."""
        if step < 0:
            raise ValueError(f"Sampler: found step {step}, expected 0 or more")
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        start = step_in_epoch * self.batch_size
        return self._order_of(epoch)[start : start + self.batch_size]

    def part(self, step: int, part: int) -> Indices:
        """The samples of the batch of `step` that belong to one of its parts."""
        batch = self.batch(step)
        num_samples, num_parts = len(batch), self.num_parts
        return batch[num_samples * part // num_parts : num_samples * (part + 1) // num_parts]

    def micro_batches(self, step: int, part: int = 0) -> list[Indices]:
        """A part of the batch in at most `max_micro_batches` pieces, only the last one short."""
        return self.cut(self.part(step, part))

    def cut(self, samples: Indices) -> list[Indices]:
        """`samples`, a part of a batch, in pieces."""
        size = self.micro_batch_size
        return [samples[start : start + size] for start in range(0, len(samples), size)]

    def _order_of(self, epoch: int) -> Indices:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self.num_samples, self.seed, epoch)
        return self._order


class Draws(Sampler):
    """Batches whose samples are drawn one by one, with replacement (book section 4.5.2).

    num_available: how many samples there are by now, for a set that grows. There are no epochs:
    `steps_per_epoch` is what somebody else wants to do every so many steps.
    """

    def __init__(
        self,
        num_available: Callable[[], int],
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        *,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__(batch_size, batch_size, micro_batch_size, seed)
        self.num_available, self.steps_per_epoch = num_available, steps_per_epoch

    def batch(self, step: int) -> Indices:
        words = stream(self.seed, Purpose.DRAW, step).random_raw(self.batch_size)
        return integers(words, 0, self.num_available())


def epoch_order(num_samples: int, seed: int, epoch: int) -> Indices:
    """A permutation `(num_samples,)` of all samples, read-only.

    Samples are sorted by one random 64-bit word each; a tie, one chance in 2^64 a pair, keeps their
    order.
    """
    words = stream(seed, Purpose.ORDER, step=epoch).random_raw(num_samples)
    order = np.argsort(words, kind="stable").astype(np.int64, copy=False)
    order.flags.writeable = False
    return order


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"Sampler: found {name} {value}, expected 1 or more")
