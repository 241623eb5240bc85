"""Exact sums in a byte an element, for numbers whose range all ranks have agreed on before.

Unit. The vector is cut into groups of 16384 elements (from its end, whatever the buckets). The
largest magnitude of a group, over all contributions of all ranks, is `levels` units, where
`levels` = 127 // num_contributions: no sum of some contributions, in any order, leaves int8. What
is rounded to is the same on all ranks, whole numbers add up in any order: the same bits on any
number of ranks.

Four contributions have 31 levels on either side of zero, sixteen have 7. So what is rounded away
matters, and whoever sums again and again keeps it for the next time (error feedback: Seide et al.
2014, 1-bit stochastic gradient descent, section 2.2; Karimireddy et al. 2019, arXiv:1901.09847):

    largest = format.magnitudes(values), and its maximum over all contributions
    format.agree_on(largest)
    kept = values - format.rounded(values)

The changes of `training.islands` are summed so. It is none of the REDUCTIONS: gradients are summed
while backward still runs, when nobody knows how large those of the others are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from distnet.base.arrays import Array
from distnet.parallel.sums.exact32 import GROUP
from distnet.parallel.sums.fixed_point import blocks_from_end, largest_magnitude
from distnet.parallel.sums.formats import Format

SMALLEST = 2.0**-100  # of a group's largest numbers: units have all digits; less counts as nothing


class Exact8(Format):
    """Whole numbers of a unit that suits the largest contribution, in int8.

    Raises ValueError if there are so many contributions that each would have too few levels.
    most: the largest magnitude of a sum; fewest_levels: for each contribution; group: elements that
    have one unit.
    """

    exact = True
    dtype = np.int8
    wire_itemsize: ClassVar[float] = 1
    most: ClassVar[int] = 127
    fewest_levels: ClassVar[int] = 2
    group: ClassVar[int] = GROUP

    def __init__(self, size: int, num_contributions: int) -> None:
        super().__init__(size, num_contributions)
        self.levels = self.most // num_contributions
        if num_contributions > self.most_contributions():
            raise ValueError(
                f"sums in {8 * self.wire_itemsize:g} bits: found {num_contributions} "
                f"contributions, expected at most {self.most_contributions()}"
            )
        self.limit = float(np.finfo(np.float32).max)
        self._groups = list(blocks_from_end(size, self.group))
        self._units = np.ones(len(self._groups), np.float32)

    @classmethod
    def most_contributions(cls) -> int:
        """With the fewest levels for each."""
        return cls.most // cls.fewest_levels

    def magnitudes(self, values: Array) -> Array:
        """The largest magnitude in each group of `values` (size,): (groups,), float64."""
        return np.array([largest_magnitude(values[group]) for group in self._groups], np.float64)

    def agree_on(self, largest: Array) -> None:
        """The largest magnitude of all contributions in each group; has to be the same on all."""
        usable = np.isfinite(largest) & (largest >= SMALLEST)
        units = np.where(usable, largest, self.levels) / self.levels
        np.copyto(self._units, units, casting="same_kind")

    def rounded(self, values: Array) -> Array:
        """What of `values` (size,) a sum holds."""
        result = np.empty_like(values)
        for piece, unit in self._pieces(0, values.size):
            np.multiply(np.rint(values[piece] / unit), unit, out=result[piece], casting="same_kind")
        return result

    def add(self, total: Array, values: Array, start: int, first: bool) -> int | None:
        offender = None
        for piece, unit in self._pieces(start, start + values.size):
            numbers = np.rint(values[piece] / unit)
            if not largest_magnitude(numbers) <= self.levels:
                last = int(np.flatnonzero(~(np.abs(numbers) <= self.levels))[-1])
                offender = piece.start + last if offender is None else offender
                numbers[...] = 0
            if first:
                total[piece] = numbers
            else:
                np.add(total[piece], numbers.astype(np.int8), out=total[piece])
        return offender

    def convert(self, total: Array, start: int, out: Array) -> None:
        for piece, unit in self._pieces(start, start + out.size):
            np.multiply(total[piece], unit, out=out[piece], casting="same_kind")

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[slice, float]]:
        """[start, stop) cut where a group begins, from the end: slices of it with their units."""
        for group, unit in zip(self._groups, self._units, strict=True):
            low, high = max(group.start, start), min(group.stop, stop)
            if low < high:
                yield slice(low - start, high - start), float(unit)
