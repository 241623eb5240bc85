"""Short-lived memory that many arrays overlay, so that it is small and stays in the cache."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array


class Scratch:
    """Arrays of which only those taken last are in use: all of them overlay the same memory.

    It grows to the largest that was asked for, and grows in powers of two, so that it seldom does;
    what nobody touches of it costs nothing. Arrays that were taken before it grew stay usable, in
    the smaller memory; `moved` is called so that who keeps them for many calls gives them up.
    """

    def __init__(self, moved: Callable[[], None] | None = None) -> None:
        self._memory, self._moved = np.empty(0, np.uint8), moved

    @property
    def nbytes(self) -> int:
        """How large it has become."""
        return self._memory.nbytes

    def take(self, *sizes: int, dtype: DTypeLike) -> list[Array]:
        """Flat arrays of these many elements, disjoint from each other, uninitialised."""
        item_bytes = np.dtype(dtype).itemsize
        needed = sum(_aligned(size * item_bytes) for size in sizes)
        if needed > self._memory.size:
            if self._moved is not None:
                self._moved()
            self._memory = np.empty(1 << (needed - 1).bit_length(), np.uint8)
        arrays, start = [], 0
        for size in sizes:
            stop = start + size * item_bytes
            arrays.append(self._memory[start:stop].view(dtype))
            start += _aligned(stop - start)
        return arrays

    def take_named(self, dtype: DTypeLike, **sizes: int) -> SimpleNamespace:
        """As `take`, by name: for so many arrays that a name stands best beside its size."""
        arrays = self.take(*sizes.values(), dtype=dtype)
        return SimpleNamespace(**dict(zip(sizes, arrays, strict=True)))


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // 64) * 64
