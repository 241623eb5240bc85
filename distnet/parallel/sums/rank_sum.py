"""What one rank adds up in a step: the sum of its own micro-batches' gradients."""

from __future__ import annotations

from distnet.base.arrays import Array
from distnet.parallel.sums.formats import Format


class RankSum:
    """A sum in `total` (size,), an array of the format's type; reused for all steps.

    Contributions come from the end of the vector. A new sum does not begin with writing zeros: the
    first contribution replaces what is left of the sum before.
    """

    def __init__(self, format: Format, total: Array) -> None:
        self._format, self._total = format, total
        self._stale_stop = total.size  # [0, stop) is left from the sum before: counts as 0

    def clear(self) -> None:
        """Starts a new sum at zero."""
        self._stale_stop = self._total.size

    def add(self, values: Array, start: int) -> int | None:
        """Adds float32 `values` (n,) to the elements [start, start + n).

        Returns the index in `values` of the last element that is not accepted, see `Format.add`.
        """
        stop = start + values.size
        first = stop == self._stale_stop
        if first:
            self._stale_stop = start
        else:
            self.complete(start)
        return self._format.add(self._total[start:stop], values, start, first)

    def add_stack(self, stack: Array) -> bool:
        """Adds the rows of `stack` (k, size) at once, or does nothing; returns whether it did."""
        units = self._format.units
        if units is None:
            return False
        first = self._stale_stop == self._total.size
        if not first:
            self.complete(0)
        if not units.add_stack(self._total, stack, first=first):
            return False
        self._stale_stop = 0
        return True

    def add_units(self, units: Array) -> None:
        """Adds a sum (size,) of several contributions that is made already."""
        if self._stale_stop == self._total.size:
            self._total[...] = units
        else:
            self.complete(0)
            self._total += units
        self._stale_stop = 0

    def complete(self, start: int) -> None:
        """Makes [start, size) of the total a sum, zero where nothing was added."""
        if start < self._stale_stop:
            self._total[start : self._stale_stop] = 0
            self._stale_stop = start
