"""Whole numbers in fewer bytes than they have in memory, and their sums over ranks."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.parallel.sums.narrow import NarrowSums, pack, unpack, width

LARGEST = {4: 2**31 - 1, 5: 2**39 - 1, 6: 2**47 - 1, 8: 2**63 - 1}


def numbers(limit, size=1000, seed=0):
    """From -limit - 1 to limit, both among them."""
    values = np.random.default_rng(seed).integers(-limit - 1, limit, size, endpoint=True)
    values[[0, size // 2, -1]] = limit, -limit - 1, -1
    return values


@pytest.mark.parametrize("itemsize", LARGEST)
def test_numbers_come_back_from_as_few_bytes_as_they_need(itemsize):
    values = numbers(LARGEST[itemsize])
    message, out = pack(values), np.empty_like(values)
    assert (message.dtype, message.size) == (np.uint8, itemsize * values.size)
    unpack(message, out)
    np.testing.assert_array_equal(out, values)


def test_one_number_decides_for_all():
    limits = list(LARGEST.values())
    for few, more in ((4, 5), (5, 6), (6, 8)):
        for extreme in (LARGEST[few] + 1, -LARGEST[few] - 2):
            assert width(np.array([0, extreme, -1])) == more
    assert [width(np.array([0, limit, -limit - 1])) for limit in limits] == list(LARGEST)
    assert width(np.zeros(0, np.int64)) == 4


@pytest.mark.parametrize(
    "num_ranks", [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (2, 3, 4)]
)
def test_sums_of_ranks(comm, num_ranks):
    """Several at once, of all widths, each rank looking after them in an order of its own."""
    sums = NarrowSums(comm, lambda num_bytes: None)
    for size in (1, 2, 500):
        limits = [LARGEST[4] // 8, 2**40, 2**46, 2**58]
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
    sums.begin(numbers(2**37, 999, comm.rank)).wait()
    assert sum(sent) == 5 * 999
