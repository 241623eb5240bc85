from __future__ import annotations

import time

import pytest

from distnet.parallel.tasks import shared_map


@pytest.mark.parametrize("num_items", [0, 1, 2, 7])
def test_it_is_map_on_every_rank(any_comm, num_items):
    items = [f"item {i}" for i in range(num_items)]
    assert shared_map(any_comm, str.upper, items) == [item.upper() for item in items]


@pytest.mark.mpi(min_size=3)
def test_each_item_is_computed_once(comm):
    computed = []
    shared_map(comm, computed.append, range(20))
    everyones = comm.allgather(computed)
    assert sorted(item for each in everyones for item in each) == list(range(20))


@pytest.mark.mpi(min_size=2)
def test_a_rank_that_finishes_early_takes_the_next_item(comm):
    """Whoever takes item 0 is busy for so long that the others do all the rest."""

    def compute(item):
        time.sleep(1.0 if item == 0 else 0.001)
        return comm.rank

    ranks = shared_map(comm, compute, range(10))
    assert ranks.count(ranks[0]) == 1


@pytest.mark.mpi(min_size=2)
def test_turns_begin_anew_each_time(comm):
    for _ in range(50):
        assert shared_map(comm, abs, [-1, -2, -3]) == [1, 2, 3]
