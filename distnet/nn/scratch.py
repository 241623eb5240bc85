"""Short-lived memory that all layers of a network overlay, so that it stays in the cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array


class Scratch:
    """Arrays whose contents live only during one forward or one backward call of one layer.

    A layer reserves what it needs when it is planned and takes it at its first call, when all
    layers have reserved: everything that is taken overlays the same memory.
    """

    def __init__(self) -> None:
        self._reserved_bytes = 0
        self._memory = np.empty(0, np.uint8)

    def reserve(self, *sizes: int, dtype: DTypeLike) -> None:
        """Announces that arrays of these many elements will be taken together."""
        total = sum(_aligned(size * np.dtype(dtype).itemsize) for size in sizes)
        self._reserved_bytes = max(self._reserved_bytes, total)

    def take(self, *sizes: int, dtype: DTypeLike) -> list[Array]:
        """Flat arrays of these many elements, disjoint from each other, uninitialised."""
        if self._memory.size < self._reserved_bytes:
            self._memory = np.empty(self._reserved_bytes, np.uint8)
        arrays, start = [], 0
        for size in sizes:
            stop = start + size * np.dtype(dtype).itemsize
            arrays.append(self._memory[start:stop].view(dtype))
            start += _aligned(stop - start)
        return arrays


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // 64) * 64
