"""Which micro-batches of a step a rank computes: a pure function of numbers that all ranks know."""

from __future__ import annotations

import heapq
from collections.abc import Sequence


def deal(
    num_micro_batches: int, rank: int, size: int, speeds: Sequence[int] | None = None
) -> range:
    """The micro-batches that `rank` of `size` ranks computes: contiguous, balanced, maybe none.

    Over the ranks they make up `range(num_micro_batches)` in order, and no rank has two more than
    another. With `speeds`, whole numbers from 1 for each rank, the last one to be ready is so as
    early as possible.
    """
    if num_micro_batches < 0 or not 0 <= rank < size:
        raise ValueError(
            f"deal: found rank {rank} of {size} for {num_micro_batches} micro-batches, "
            "expected 0 <= rank < size and at least 0 micro-batches"
        )
    if speeds is not None:
        shares = _shares(num_micro_batches, speeds)
        start = sum(shares[:rank])
        return range(start, start + shares[rank])
    return range(rank * num_micro_batches // size, (rank + 1) * num_micro_batches // size)


def _shares(num_micro_batches: int, speeds: Sequence[int]) -> list[int]:
    """How many each rank gets: one after another goes to whoever would be ready with it first.

    That is optimal for equal tasks. Quotients of small whole numbers are rounded alike everywhere.
    """
    shares = [0] * len(speeds)
    ready = [(1 / speed, rank) for rank, speed in enumerate(speeds)]
    heapq.heapify(ready)
    for _ in range(num_micro_batches):
        rank = ready[0][1]
        shares[rank] += 1
        heapq.heapreplace(ready, ((shares[rank] + 1) / speeds[rank], rank))
    return shares
