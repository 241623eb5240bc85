"""Sums of int64 vectors over few ranks, each number in as few bytes as it needs, and none lost.

Exact sums are whole numbers of 2^-40: a gradient below 1/2 in magnitude is one of at most 40 bits.
Between hosts, where bytes are time, the leading bytes that only repeat the sign stay at home: a
message has 4, 5, 6 or 8 bytes a number, as its largest one needs, and its length tells which.

MPI cannot add up such messages, so they go from rank to rank and are added up here:

* two ranks send each other the whole vector, once;
* of more, each adds up one piece of the vector, and tells the others (reduce-scatter, allgather).

Either way a rank sends 2 (p - 1) / p of the vector, as the best algorithms of MPI do (Thakur et al.
2005, doi:10.1177/1094342005051521), in as many rounds as the fewest of them. The number of messages
grows with that of ranks, so where these are many it is left to MPI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.parallel.communicator import Communicator, Request
from distnet.parallel.sums.formats import Format

MOST_RANKS = 8
USUAL_BYTES = 5  # that the largest of many gradients needs: below 1/2, and not below 1/512
MOST_UNDER_WAY = (1 << 14) - 1  # sums: two tags each, below those of `patience`
WORD = 8  # bytes of an int64
# First come the four low bytes of all numbers, then what else they have, in this type.
REST: dict[int, np.dtype[Any]] = {5: np.dtype(np.int8), 6: np.dtype(np.int16)}


def can_be_narrow(comm: Communicator, format: Format) -> bool:
    """Whether the messages of a format are int64 sums, and the ranks that sum them are few."""
    is_int64 = format.dtype is np.int64 and format.wire_itemsize == WORD and format.op == "sum"
    return is_int64 and 1 < comm.size <= MOST_RANKS


def width(values: Array) -> int:
    """How many bytes a number of `values` (n,), int64, has in a message: 4, 5, 6 or 8."""
    magnitude = max(int(values.max(initial=0)), ~int(values.min(initial=0)))
    needed = max(4, ceil_divide(magnitude.bit_length() + 1, 8))
    return needed if needed <= max(REST) else WORD


def pack(values: Array) -> Array:
    """`values` (n,), int64, as bytes, uint8 (n * width,); where they need 8, those of `values`."""
    size, itemsize = values.size, width(values)
    if itemsize == WORD:
        return values.view(np.uint8)
    message = np.empty(itemsize * size, np.uint8)
    np.copyto(message[: 4 * size].view(np.uint32), values, casting="unsafe")
    if itemsize in REST:
        rest = message[4 * size :].view(REST[itemsize])
        np.copyto(rest, values >> 32, casting="unsafe")
    return message


def unpack(message: Array, out: Array) -> None:
    """Writes the numbers of which `pack` has made a message to `out` (n,), int64."""
    size = out.size
    itemsize = message.size // max(size, 1)
    if itemsize in REST:
        np.copyto(out, message[4 * size :].view(REST[itemsize]))
        np.left_shift(out, 32, out=out)
        np.bitwise_or(out, message[: 4 * size].view(np.uint32), out=out)
    else:
        np.copyto(out, message.view(np.int64 if itemsize == WORD else np.int32))


def add(message: Array, total: Array) -> None:
    """Adds the numbers of which `pack` has made a message to `total` (n,), int64."""
    numbers = np.empty_like(total)
    unpack(message, numbers)
    np.add(total, numbers, out=total)


class NarrowSums:
    """Any number of sums that are under way at once, over the ranks of `comm`.

    All ranks begin the same sums in the same order. count: is told of all bytes that are sent,
    those that go to several ranks once.
    """

    def __init__(self, comm: Communicator, count: Callable[[int], None]) -> None:
        self.comm, self.count = comm, count
        self.are_direct = comm.size == 2
        self._num_begun = 0
        self._under_way: list[NarrowSum] = []

    def begin(self, array: Array) -> Request:
        """Replaces `array` (n,), int64, on every rank by its sum, as `Communicator.iallreduce`."""
        self._num_begun += 1
        begun = NarrowSum(self, array, self._num_begun % MOST_UNDER_WAY)
        self._under_way.append(begun)
        return begun

    def clear(self) -> None:
        """Begins a new step."""
        self._under_way.clear()

    def progress(self) -> None:
        """Takes all sums one round further whose messages are there."""
        self._under_way = [each for each in self._under_way if not each.test()]


class NarrowSum:
    """A request: one sum, in one round of messages between two ranks, in two between more."""

    def __init__(self, sums: NarrowSums, array: Array, number: int) -> None:
        self._sums, self._array, self._number = sums, array, number
        self._rounds = self._direct() if sums.are_direct else self._scattered()
        self._round = next(self._rounds, None)

    def test(self) -> bool:
        while self._round is not None and self._round.test():
            self._round = next(self._rounds, None)
        return self._round is None

    def wait(self) -> None:
        while not self.test():
            if self._sums.are_direct:
                assert self._round is not None
                self._round.wait()
            else:  # of the others too, or their second rounds would come one after another
                self._sums.progress()
                os.sched_yield()

    def _direct(self) -> Iterator[Request]:
        """Each of two ranks sends the other its whole vector."""
        own, comm = pack(self._array), self._sums.comm
        self._sums.count(own.nbytes)
        room = np.empty(self._array.nbytes, np.uint8)
        swap = comm.ialltoall([own] * 2, [room] * 2, 2 * self._number)
        yield swap
        add(room[: swap.received[1 - comm.rank]], self._array)

    def _scattered(self) -> Iterator[Request]:
        """Each rank is sent one piece of the vector by all, adds it up, and sends it to all."""
        comm, size = self._sums.comm, self._array.size
        cuts = [size * rank // comm.size for rank in range(comm.size + 1)]
        pieces = [self._array[start:stop] for start, stop in pairwise(cuts)]
        others, mine = [r for r in range(comm.size) if r != comm.rank], pieces[comm.rank]
        parts = [pack(piece) for piece in pieces]
        self._sums.count(sum(parts[rank].nbytes for rank in others))
        rooms = [np.empty(mine.nbytes, np.uint8) for _ in pieces]
        swap = comm.ialltoall(parts, rooms, 2 * self._number)
        yield swap
        for rank in others:
            add(rooms[rank][: swap.received[rank]], mine)
        total = pack(mine)
        self._sums.count(total.nbytes)
        rooms = [np.empty(piece.nbytes, np.uint8) for piece in pieces]
        swap = comm.ialltoall([total] * comm.size, rooms, 2 * self._number + 1)
        yield swap
        for rank in others:
            unpack(rooms[rank][: swap.received[rank]], pieces[rank])
