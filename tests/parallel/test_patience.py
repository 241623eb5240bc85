"""Ranks that share cores gather values asleep."""

from __future__ import annotations

import itertools

import pytest

from distnet.parallel import patience
from distnet.parallel.mpi_communicator import MPICommunicator


@pytest.fixture
def crowded(comm, monkeypatch):
    """The ranks on a host with one core for all of them."""
    monkeypatch.setattr("distnet.parallel.mpi_communicator.num_cores", lambda: 1)
    group = MPICommunicator()
    yield group
    group.close()


@pytest.fixture
def gathered(monkeypatch):
    """The values that this rank has gathered patiently."""
    values, gather = [], patience.gather_patiently

    def noted(comm, value):
        values.append(value)
        return gather(comm, value)

    monkeypatch.setattr("distnet.parallel.mpi_communicator.gather_patiently", noted)
    return values


@pytest.mark.mpi(min_size=2)
def test_gathers_in_the_order_of_ranks_whatever_is_given(crowded, gathered):
    for length in (0, 3, 200_000):  # also where MPI asks before it sends
        everywhere = crowded.allgather([crowded.rank] * length)
        assert everywhere == [[rank] * length for rank in range(crowded.size)]
    assert len(gathered) == 3


@pytest.mark.mpi(min_size=2)
def test_one_gathering_does_not_hear_the_next(crowded):
    for number in range(20):
        assert crowded.allgather(number) == [number] * crowded.size


@pytest.mark.mpi(min_size=2)
def test_a_part_of_crowded_ranks_is_crowded(crowded, gathered):
    alone = crowded.split(crowded.rank)
    gathered.clear()
    assert alone.allgather("x") == ["x"] and gathered == ["x"]


@pytest.mark.mpi(min_size=2)
def test_ranks_with_a_core_each_leave_it_to_mpi(comm, gathered, monkeypatch):
    monkeypatch.setattr("distnet.parallel.mpi_communicator.num_cores", lambda: comm.size)
    group = MPICommunicator()
    gathered.clear()
    assert group.allgather(group.rank) == list(range(group.size)) and not gathered
    group.close()


def test_naps_are_at_most_half_of_the_waiting_before(monkeypatch):
    now, naps = 0.0, []

    def sleep(seconds):
        nonlocal now
        naps.append((now, seconds))
        now += seconds

    monkeypatch.setattr(patience.time, "monotonic", lambda: now)
    monkeypatch.setattr(patience.time, "sleep", sleep)
    for _ in itertools.islice(patience.naps(), 60):
        pass
    assert naps[0] == (0.0, 0.0)
    assert all(0 < nap <= waited / 2 + patience.SHORTEST_NAP for waited, nap in naps[1:])
    assert naps[-1][1] == patience.LONGEST_NAP
