"""How numbers are added up and stand in messages: one class for each number format of a sum.

A `Format` is arithmetic alone. The arrays belong to others: a rank's own sum to `rank_sum`, the way
to the total over all ranks to an `exchange`. Any format can travel by any exchange.

Here are the two plain formats, whose messages are the sums themselves; `exact32` and `half` travel
in fewer bytes. A new one is a class here or in a file of its own, and a line in
`reducer.REDUCTIONS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.parallel.communicator import Op
from distnet.parallel.sums.fixed_point import FixedPoint, last_beyond


class Format(ABC):
    """Adds up at most `num_contributions` vectors (size,), float32 or float64, over all ranks.

    Its methods work on pieces of the vectors: element 0 of a piece is element `start` of the whole.

    result_dtype: of the vectors and their total; a format that rounds to less does so in any case.
    limit: the largest magnitude of an element that `add` accepts.
    op: how the messages of two ranks are combined.
    state: what a sum depends on besides its contributions, by name; the same on all ranks, part of
    a run's state. Most formats have none.
    """

    exact: ClassVar[bool]  # whether the bits are the same on any number of ranks
    dtype: ClassVar[DTypeLike]  # in which a rank adds up
    wire_itemsize: ClassVar[float]  # bytes that one element takes in a message
    limit: float
    op: Op = "sum"

    def __init__(self, size: int, num_contributions: int) -> None:
        self.size = size
        self.num_contributions = num_contributions
        self.state: dict[str, Array] = {}
        self.result_dtype: np.dtype[Any] = np.dtype(np.float32)

    @abstractmethod
    def add(self, total: Array, values: Array, start: int, first: bool) -> int | None:
        """Adds `values` (n,) to `total` (n,), or replaces what is there by the `first`.

        Returns None, or the index in `values` of the last element that is not accepted; the sum is
        then worthless, but holds no NaN.
        """

    @property
    def units(self) -> FixedPoint | None:
        """What `total` counts in, whole numbers that anybody may add up beforehand; or None."""
        return None

    def complete(self, total: Array, start: int) -> None:
        """`total` (n,) is a rank's whole sum: nothing is added to it any more."""
        return None

    @abstractmethod
    def convert(self, total: Array, start: int, out: Array) -> None:
        """Writes the numbers for which `total` (n,) stands to `out` (n,)."""

    def encode(self, total: Array, start: int) -> Array:
        """What stands for a rank's sum `total` (n,) in a message: `total` itself, or other memory.

        The format keeps that memory, which is valid until the next `encode` of the same piece.
        """
        return total

    def holds(self, message: Array) -> bool:
        """Whether the combined `message` of all ranks holds their total; the same on all ranks.

        If not, the totals themselves have to be combined.
        """
        return True

    def decode(self, message: Array, start: int, out: Array) -> None:
        """As `convert`, of the combined message of all ranks, which `holds` their total."""
        self.convert(message, start, out)

    def settle(self, result: Array) -> None:
        """The step is valid and `result` (size,) its sum: changes `state` accordingly."""
        return None


class Exact(Format):
    """Fixed point in int64, see `fixed_point`: the same bits on any number of ranks."""

    exact = True
    dtype = np.int64
    wire_itemsize = 8

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self._fixed_point = FixedPoint(num_contributions)
        self.limit = self._fixed_point.limit

    def add(self, total: Array, values: Array, start: int, first: bool) -> int | None:
        return self._fixed_point.add(total, values, first=first)

    def convert(self, total: Array, start: int, out: Array) -> None:
        self._fixed_point.to_float(total, out)

    @property
    def units(self) -> FixedPoint | None:
        return self._fixed_point


class Float32(Format):
    """Plain float32 and MPI's own sum: half the bytes of `Exact`.

    Its rounding depends on how the ranks share the work: it gives up the promise of the same bits
    on any number of ranks.
    """

    exact = False
    dtype = np.float32
    wire_itemsize = 4

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        # Half of the range for rounding errors: the sum stays finite.
        self.limit = float(np.finfo(np.float32).max) / (2 * num_contributions)

    def add(self, total: Array, values: Array, start: int, first: bool) -> int | None:
        offender = last_beyond(values, self.limit)
        if offender is None and first:
            np.copyto(total, values)
        elif offender is None:
            np.add(total, values, out=total)
        return offender

    def convert(self, total: Array, start: int, out: Array) -> None:
        np.copyto(out, total)
