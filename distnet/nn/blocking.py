"""How long products are, and how they are cut: what BLAS and the caches like."""

from __future__ import annotations

SMALL_PRODUCT = 1_000_000  # multiplications up to which OpenBLAS works without packing copies


def equal_parts(length: int, longest: int) -> int:
    """Into how many equal parts to cut `length`, as few as leave at most `longest` in each.

    Parts are equal, so that they are one array of several matrices: of a prime length each is 1.
    """
    parts = -(-length // max(1, longest))
    while length % parts:
        parts += 1
    return parts
