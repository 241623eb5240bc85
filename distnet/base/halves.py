"""Numbers of 16 bits: float16, of 11 significant bits, and bfloat16, the upper half of float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distnet.base.arrays import Array


def to_float16(x: Array) -> None:
    """Rounds float32 numbers in place, ties to even; what is beyond 65504 becomes infinite."""
    with np.errstate(over="ignore"):
        np.copyto(x, x.astype(np.float16))


def to_bfloat16(x: Array) -> None:
    """Rounds float32 numbers in place, ties to even (Kalamkar et al. 2019, arXiv:1905.12322)."""
    bits = bfloat16_bits(x)
    bits &= np.uint32(0xFFFF0000)
    np.copyto(x, bits.view(np.float32))


def bfloat16_bits(values: Array) -> Array:
    """The bits of float32 `values`, uint32: in the upper half those of the nearest bfloat16."""
    bits = values.view(np.uint32)
    # Half of the last place that is kept, less the least bit if that place is even.
    rounded = (bits >> 16) & 1
    rounded += np.uint32(0x7FFF)
    rounded += bits
    return rounded


HALVES: dict[str, Callable[[Array], None]] = {"float16": to_float16, "bfloat16": to_bfloat16}
