"""Whole numbers in fewer bytes than they have in memory, and their sums over ranks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from distnet.parallel.sums.narrow import NarrowSums, num_bits, num_bytes, pack, unpack

LARGEST = {bits: 2 ** (bits - 1) - 1 for bits in (32, 34, 36, 40, 48, 64)}


def numbers(limit, size=1000, seed=0):
    """From -limit - 1 to limit, both among them."""
    values = np.random.default_rng(seed).integers(-limit - 1, limit, size, endpoint=True)
    if size > 1:
        values[[0, -1]] = limit, -limit - 1
    return values


@pytest.mark.parametrize("bits", LARGEST)
@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 11, 13, 64, 1001])
def test_numbers_come_back_from_as_few_bits_as_they_need(bits, size):
    values = numbers(LARGEST[bits], size)
    message, out = pack(values), np.empty_like(values)
    assert message.dtype == np.uint8
    if size >= 8:
        assert message.size == num_bytes(bits, size) == 4 * size + -(-(bits - 32) * size // 8)
    unpack(message, out)
    np.testing.assert_array_equal(out, values)


def test_one_number_decides_for_all():
    some = np.zeros(1000, np.int64)
    for few, more in pairwise(LARGEST):
        for extreme in (LARGEST[few] + 1, -LARGEST[few] - 2):
            some[5] = extreme
            assert num_bits(some) == more
        some[5:7] = LARGEST[few], -LARGEST[few] - 1
        assert num_bits(some) == few
        some[:] = 0
    assert num_bits(np.zeros(0, np.int64)) == 32


@pytest.mark.parametrize("size", range(1, 40))
def test_the_length_of_a_message_tells_how_it_was_packed(size):
    """Of few numbers only whole bytes are packed."""
    widths = [bits for bits in LARGEST if size >= 8 or bits % 8 == 0]
    assert {num_bits(np.full(size, LARGEST[bits])) for bits in LARGEST} == set(widths)
    assert len({num_bytes(bits, size) for bits in widths}) == len(widths)


@pytest.mark.parametrize(
    "num_ranks", [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (2, 3, 4)]
)
def test_sums_of_ranks(comm, num_ranks):
    """Several at once, of all widths, each rank looking after them in an order of its own."""
    sums = NarrowSums(comm, lambda num_bytes: None)
    for size in (1, 2, 500):
        limits = [LARGEST[32] // 8, LARGEST[34] // 8, 2**34, 2**40, 2**46, 2**58]
        own = [
            numbers(limit, max(size, 3), 10 * n + comm.rank)[:size]
            for n, limit in enumerate(limits)
        ]
        expected = [sum(comm.allgather(values)) for values in own]
        requests = [sums.begin(values) for values in own]
        for number in np.random.default_rng(comm.rank).permutation(len(requests)):
            requests[number].wait()
            assert requests[number].test()
        for values, total in zip(own, expected, strict=True):
            np.testing.assert_array_equal(values, total)
        sums.clear()


@pytest.mark.parametrize(
    "num_ranks", [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (2, 3)]
)
def test_it_sends_what_the_numbers_need(comm, num_ranks):
    sent: list[int] = []
    sums = NarrowSums(comm, sent.append)
    sums.begin(numbers(2**36, 999, comm.rank)).wait()
    assert sum(sent) == 5 * 999
