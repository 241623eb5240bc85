"""How gradients are added up on a rank and combined over ranks: one class for each number format.

A `GradientSum` owns the running sum of a flat vector of `size` gradients. The reducer hands it
pieces of micro-batch gradients, asks it to exchange buckets, and to read the total. A format that
travels in another type than it is added up in converts in `exchange` and `read`.

Here are the two plain formats; `exact32` and `half` travel in fewer bytes, `shared` not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.parallel.communicator import Communicator, Done, Request
from distnet.parallel.sums.fixed_point import FixedPoint, last_beyond

# Measured, see docs/log.md. On one host sending is computing: few messages. Between hosts they
# shall be small enough that most leave while backward still computes.
BUCKET_BYTES, BUCKET_BYTES_BETWEEN_HOSTS = 1 << 20, 1 << 16


class GradientSum(ABC):
    """The sum of at most `num_contributions` gradient vectors (size,) over all ranks.

    limit: the largest magnitude of an element that `add` accepts.
    state: what a sum depends on besides its contributions, by name; the same on all ranks, part of
    a run's state. Most formats have none.
    bytes_sent: what this rank has handed over to the others since `clear`.
    result: the total over all ranks, float32 (size,), after `complete`.
    """

    exact: ClassVar[bool]  # whether the bits are the same on any number of ranks
    sends: ClassVar[bool] = True  # whether buckets travel in messages
    wire_itemsize: ClassVar[int]  # bytes that one element takes in a message
    dtype: ClassVar[DTypeLike]  # in which a rank adds up
    limit: float

    def __init__(self, size: int, num_contributions: int) -> None:
        self.size = size
        self.num_contributions = num_contributions
        self.state: dict[str, Array] = {}
        self.bytes_sent = 0
        self.result = np.zeros(size, np.float32)
        self._total = np.zeros(size, self.dtype)
        self._stale_stop = size  # [0, stop) of the total is left from the sum before: counts as 0

    def clear(self) -> None:
        """Starts a new sum at zero; what is still in flight is given up."""
        self._stale_stop = self.size
        self.bytes_sent = 0

    def add(self, values: Array, start: int) -> int | None:
        """Adds float32 `values` (n,) to the elements [start, start + n) of this rank's sum.

        Returns None, or the index in `values` of the last element that is not accepted; the sum is
        then worthless, but holds no NaN.
        """
        stop = start + values.size
        first = stop == self._stale_stop
        if first:
            self._stale_stop = start
        else:
            self._zero_stale(start)
        return self._accumulate(values, start, first)

    @abstractmethod
    def _accumulate(self, values: Array, start: int, first: bool) -> int | None:
        """As `add`; the `first` contribution takes the place of what is there."""

    def best_bucket_bytes(self, comm: Communicator) -> int:
        """How large messages should be."""
        return BUCKET_BYTES if comm.node.count == 1 else BUCKET_BYTES_BETWEEN_HOSTS

    def exchange(self, comm: Communicator, bucket: slice) -> Request:
        """Starts to combine a bucket, to which nothing will be added any more, over all ranks."""
        message = self._own(bucket)
        self.bytes_sent += message.nbytes
        return comm.iallreduce(message)

    def _own(self, bucket: slice) -> Array:
        """This rank's sum of a bucket, a view: zero if nothing was added."""
        self._zero_stale(bucket.start)
        return self._total[bucket]

    def _zero_stale(self, start: int) -> None:
        """Makes [start, size) of the total a sum, if some of it is still left from the one before.

        Contributions come from the end, so that the first one usually does without.
        """
        if start < self._stale_stop:
            self._total[start : self._stale_stop] = 0
            self._stale_stop = start

    @abstractmethod
    def read(self, bucket: slice) -> None:
        """Writes the total of a bucket whose exchange is finished to `result`.

        To be called for every bucket in the order of their exchanges, on all ranks alike, after the
        last of these was started: it may call the communicator.
        """

    def complete(self, comm: Communicator) -> Request:
        """Every rank has exchanged all buckets, this one read them: a request for `result`."""
        return Done()

    def settle(self) -> None:
        """The step is valid and `result` its sum: changes `state` accordingly."""
        return None


class ExactSum(GradientSum):
    """Fixed point in int64, see `fixed_point`: the same bits on any number of ranks."""

    exact = True
    wire_itemsize = 8
    dtype = np.int64

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._fixed_point = FixedPoint(num_contributions)
        self.limit = self._fixed_point.limit

    def _accumulate(self, values: Array, start: int, first: bool) -> int | None:
        total = self._total[start : start + values.size]
        return self._fixed_point.add(total, values, first=first)

    def read(self, bucket: slice) -> None:
        self._fixed_point.to_float(self._total[bucket], self.result[bucket])


class Float32Sum(GradientSum):
    """Plain float32 and MPI's own sum: half the bytes of `ExactSum`.

    Its rounding depends on how the ranks share the work: it gives up the promise of the same bits
    on any number of ranks.
    """

    exact = False
    wire_itemsize = 4
    dtype = np.float32

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        # Half of the range for rounding errors: the sum stays finite.
        self.limit = float(np.finfo(np.float32).max) / (2 * num_contributions)

    def _accumulate(self, values: Array, start: int, first: bool) -> int | None:
        offender = last_beyond(values, self.limit)
        total = self._total[start : start + values.size]
        if offender is None and first:
            np.copyto(total, values)
        elif offender is None:
            np.add(total, values, out=total)
        return offender

    def read(self, bucket: slice) -> None:
        np.copyto(self.result[bucket], self._total[bucket])
