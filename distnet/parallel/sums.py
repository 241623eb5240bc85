"""How gradients are added up on a rank and combined over ranks: one class for each number format.

A `GradientSum` owns the running sum of a flat vector of `size` gradients. The reducer hands it
pieces of micro-batch gradients, asks it to exchange buckets, and reads the total. A format that
travels in another type than it is added up in converts in `exchange` and `read`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from distnet.parallel.communicator import Communicator, Request
from distnet.parallel.fixed_point import FixedPoint, last_beyond

Array = np.ndarray[Any, np.dtype[Any]]


class GradientSum(ABC):
    """The sum of at most `num_contributions` gradient vectors (size,) over all ranks.

    limit: the largest magnitude of an element that `add` accepts.
    """

    exact: ClassVar[bool]  # whether the bits are the same on any number of ranks
    wire_itemsize: ClassVar[int]  # bytes that one element takes in a message
    limit: float

    def __init__(self, size: int, num_contributions: int) -> None:
        self.size = size
        self.num_contributions = num_contributions

    @abstractmethod
    def clear(self) -> None:
        """Starts a new sum at zero; what is still in flight is given up."""

    @abstractmethod
    def add(self, values: Array, start: int) -> int | None:
        """Adds float32 `values` (n,) to the elements [start, start + n) of this rank's sum.

        Returns None, or the index in `values` of the last element that is not accepted; the sum is
        then worthless, but holds no NaN.
        """

    @abstractmethod
    def exchange(self, comm: Communicator, bucket: slice) -> Request:
        """Starts to combine a bucket, to which nothing will be added any more, over all ranks."""

    @abstractmethod
    def read(self, bucket: slice, out: Array) -> None:
        """Writes the total of a bucket whose exchange is finished to `out`, float32 (n,)."""


class ExactSum(GradientSum):
    """Fixed point in int64, see `fixed_point`: the same bits on any number of ranks."""

    exact = True
    wire_itemsize = 8

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._fixed_point = FixedPoint(num_contributions)
        self.limit = self._fixed_point.limit
        self._total = np.zeros(size, np.int64)

    def clear(self) -> None:
        self._total.fill(0)

    def add(self, values: Array, start: int) -> int | None:
        return self._fixed_point.add(self._total[start : start + values.size], values)

    def exchange(self, comm: Communicator, bucket: slice) -> Request:
        return comm.iallreduce(self._total[bucket])

    def read(self, bucket: slice, out: Array) -> None:
        self._fixed_point.to_float(self._total[bucket], out)


class Float32Sum(GradientSum):
    """Plain float32 and MPI's own sum: half the bytes of `ExactSum`.

    Its rounding depends on how the ranks share the work: it gives up the promise of the same bits
    on any number of ranks.
    """

    exact = False
    wire_itemsize = 4

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        # Half of the range for rounding errors: the sum stays finite.
        self.limit = float(np.finfo(np.float32).max) / (2 * num_contributions)
        self._total = np.zeros(size, np.float32)

    def clear(self) -> None:
        self._total.fill(0)

    def add(self, values: Array, start: int) -> int | None:
        offender = last_beyond(values, self.limit)
        if offender is None:
            self._total[start : start + values.size] += values
        return offender

    def exchange(self, comm: Communicator, bucket: slice) -> Request:
        return comm.iallreduce(self._total[bucket])

    def read(self, bucket: slice, out: Array) -> None:
        np.copyto(out, self._total[bucket])
