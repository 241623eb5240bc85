"""Sums of int64 vectors over few ranks, each number in as few bits as it needs, and none lost.

Exact sums are whole numbers of 2^-40: a gradient below 1/2 in magnitude is one of at most 40 bits.
Between hosts, where bytes are time, the leading bits that only repeat the sign stay at home: a
message has 32, 34, 36, 40, 48 or 64 bits a number, as its largest one needs, and its length
tells which. First come the low 32 bits of all numbers, then what else they have.

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

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.parallel.communicator import Communicator, Request
from distnet.parallel.sums.formats import Format

MOST_RANKS = 8
USUAL_BITS = 38  # on average: DeepConvNet's gradients, half of which need 36 and half 40
MOST_UNDER_WAY = (1 << 14) - 1  # sums: two tags each, below those of `patience`
WORD = 8  # bytes of an int64
LOW = 32
BEYOND = (0, 2, 4, 8, 16)  # bits beyond the low ones; those below 8 share a byte with others
FEWEST = 8  # numbers that share bytes, so that messages of other widths have other lengths


def can_be_narrow(comm: Communicator, format: Format) -> bool:
    """Whether the messages of a format are int64 sums, and the ranks that sum them are few."""
    is_int64 = format.dtype is np.int64 and format.wire_itemsize == WORD and format.op == "sum"
    return is_int64 and 1 < comm.size <= MOST_RANKS


def num_bits(values: Array) -> int:
    """How many bits a number of `values` (n,), int64, has in a message."""
    magnitude = max(int(values.max(initial=0)), ~int(values.min(initial=0)))
    needed = magnitude.bit_length() + 1
    for beyond in BEYOND:
        if needed <= LOW + beyond and (beyond % 8 == 0 or values.size >= FEWEST):
            return LOW + beyond
    return 8 * WORD


def num_bytes(bits: int, size: int) -> int:
    """The length of a message of `size` numbers of so many bits."""
    return WORD * size if bits == 8 * WORD else 4 * size + ceil_divide((bits - LOW) * size, 8)


def pack(values: Array) -> Array:
    """`values` (n,), int64, as bytes, uint8; where they need all 64 bits, those of `values`."""
    size, bits = values.size, num_bits(values)
    if bits == 8 * WORD:
        return values.view(np.uint8)
    message = np.empty(num_bytes(bits, size), np.uint8)
    low, rest = message[: 4 * size], message[4 * size :]
    np.copyto(low.view(np.uint32), values, casting="unsafe")
    if bits == LOW + 16:
        np.copyto(rest.view(np.int16), values >> LOW, casting="unsafe")
    elif bits == LOW + 8:
        np.copyto(rest.view(np.int8), values >> LOW, casting="unsafe")
    elif bits > LOW:
        _fold(values >> LOW, bits - LOW, rest)
    return message


def unpack(message: Array, out: Array) -> None:
    """Writes the numbers of which `pack` has made a message to `out` (n,), int64."""
    size = out.size
    if message.size == num_bytes(8 * WORD, size):
        np.copyto(out, message.view(np.int64))
        return
    # Of few numbers several widths have that length, but only the largest is used.
    beyond = max(each for each in BEYOND if num_bytes(LOW + each, size) == message.size)
    low, rest = message[: 4 * size], message[4 * size :]
    if beyond == 0:
        np.copyto(out, low.view(np.int32))
        return
    if beyond < 8:
        rest = _unfolded(rest, beyond, size)
    np.copyto(out, rest.view(np.int16 if beyond == 16 else np.int8))
    np.left_shift(out, LOW, out=out)
    np.bitwise_or(out, low.view(np.uint32), out=out)


def _fold(high: Array, bits: int, out: Array) -> None:
    """Writes so many low bits of each of `high` (n,) to `out`, those of 8 / bits in a byte.

    The vector is folded: a byte has bits of numbers that are n * bits / 8 apart, so that all its
    parts are runs of memory.
    """
    parts = np.zeros((8 // bits, out.size), np.uint8)
    np.copyto(parts.reshape(-1)[: high.size], high, casting="unsafe")
    np.bitwise_and(parts, np.uint8((1 << bits) - 1), out=parts)
    np.copyto(out, parts[0])
    for k, part in enumerate(parts[1:], 1):
        np.left_shift(part, np.uint8(k * bits), out=part)
        np.bitwise_or(out, part, out=out)


def _unfolded(rest: Array, bits: int, size: int) -> Array:
    """Bytes (size,) with the bits that `_fold` wrote; those above are as the highest, the sign."""
    parts = np.empty((8 // bits, rest.size), np.uint8)
    for k, part in enumerate(parts):
        np.right_shift(rest, np.uint8(k * bits), out=part)
    high, sign = parts.reshape(-1)[:size], np.uint8(1 << (bits - 1))
    np.bitwise_and(high, np.uint8((1 << bits) - 1), out=high)
    np.bitwise_xor(high, sign, out=high)
    return np.subtract(high, sign, out=high)


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
