"""Ranks that believe to be on several hosts: the bits of one process, in as few bytes as can be."""

from __future__ import annotations

import time

import numpy as np
import pytest

from distnet.parallel import REDUCTIONS, SerialCommunicator, make_reducer
from distnet.parallel.mpi_communicator import MPICommunicator
from distnet.parallel.sums.exchange import Messages
from distnet.parallel.sums.two_level import TwoLevels, bucket_bytes

SIZE, NUM_MICRO_BATCHES = 20_001, 7
HOSTS = ["aab", "aabb", "abab", "abbb", "abcb"]  # the host of each rank
EXACT = [kind for kind in REDUCTIONS if REDUCTIONS[kind].exact]


@pytest.fixture(
    params=[pytest.param(h, marks=pytest.mark.mpi(min_size=len(h))) for h in HOSTS], ids=HOSTS
)
def hosts(request, comm, monkeypatch):
    """A communicator whose ranks have these host names; any more are on a host of their own."""
    names = request.param + "z" * comm.size
    monkeypatch.setattr("distnet.parallel.mpi_communicator.host_name", lambda: names[comm.rank])
    communicator = MPICommunicator()
    yield communicator
    communicator.close()


def contributions(step):
    """Of all micro-batches; they grow from step to step, so that int32 does not always do."""
    values = np.random.default_rng(step).standard_normal((NUM_MICRO_BATCHES, SIZE))
    return (values * 100.0**step * 1e-4).astype(np.float32)


class Run:
    """A reducer and the vector that it reads, which `step` fills as backward does."""

    def __init__(self, kind, comm, exchange, size=SIZE, **options):
        self.comm, self.gradients = comm, np.zeros(size, np.float32)
        options = {"num_contributions": NUM_MICRO_BATCHES, "exchange": exchange} | options
        self.reducer = make_reducer(kind, comm, self.gradients, 1, **options)
        self.exchange = self.reducer.exchange

    def step(self, step, before_add=lambda: None):
        size, mine = self.gradients.size, range(self.comm.rank, NUM_MICRO_BATCHES, self.comm.size)
        self.reducer.start(mine)
        for m in mine:
            self.gradients[:] = contributions(step)[m, :size]
            for offset in range(size - 1, 0, -(size // 9)):
                self.reducer.ready(offset)
            before_add()
            self.reducer.add(m, np.ones(1))
        return self.reducer.finish()[0].tobytes()


@pytest.mark.parametrize("exchange", ["two-level", "leaders"])
@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("size, bucket_bytes", [(SIZE, 0), (SIZE, 5000), (100, 8)])
def test_the_bits_of_one_process(hosts, kind, exchange, size, bucket_bytes):
    """In buckets of all sizes, also of one element, of which most lanes have no share."""
    run = Run(kind, hosts, exchange, size, bucket_bytes=bucket_bytes)
    alone = Run(kind, SerialCommunicator(), "messages", size)
    assert isinstance(run.exchange, TwoLevels)
    repeats = []
    for step in range(4):
        assert run.step(step) == alone.step(step)
        repeats.append(max(hosts.allgather(run.exchange.num_repeats)))
    assert any(repeats) == (kind == "exact32"), "what does not fit into int32 is sent again"


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_it_is_the_way_of_exact_sums_where_a_host_has_several_ranks(hosts, kind):
    """The others are left to MPI, but can be told to take it."""
    assert type(Run(kind, hosts, "auto").exchange) is (TwoLevels if kind in EXACT else Messages)
    total = np.frombuffer(Run(kind, hosts, "two-level").step(0), np.float32)
    exact = np.frombuffer(Run("exact", hosts, "auto").step(0), np.float32)
    np.testing.assert_allclose(total, exact, atol=0.02 * np.abs(exact).max())


def test_it_cannot_be_had_on_one_host_or_where_ranks_may_be_lost(hosts, comm, monkeypatch):
    with pytest.raises(ValueError, match=r"exchange two-level: found . ranks? on 1 host that"):
        Run("exact", comm, "two-level")
    monkeypatch.setattr(hosts, "survives_losses", True)
    assert type(Run("exact", hosts, "auto").exchange) is Messages


@pytest.mark.parametrize("step, itemsize", [(0, 4), (1, 5), (2, 6), (3, 8)])
def test_each_element_is_sent_once_by_a_host(hosts, step, itemsize):
    """By the ranks of the lanes in equal shares, or by the first; in the bytes that it needs."""
    names = [process.host for process in hosts.processes]
    fewest = min(map(names.count, names))
    for exchange, num_lanes in (("two-level", fewest), ("leaders", 1)):
        run = Run("exact", hosts, exchange)
        run.step(step)
        sent, lane = run.exchange.bytes_sent, hosts.node.rank
        assert abs(sent - (itemsize * SIZE / num_lanes if lane < num_lanes else 0)) <= 8 * 9
        everyones = hosts.allgather((hosts.node.name, sent))
        assert sum(sent for name, sent in everyones if name == hosts.node.name) == itemsize * SIZE


def test_buckets_are_neither_small_nor_many():
    assert bucket_bytes(100, 2) == bucket_bytes(1 << 21, 2) == 1 << 17
    assert bucket_bytes(1 << 25, 2) == 1 << 21


def test_a_fast_rank_does_not_disturb_what_a_slow_one_still_reads(hosts):
    """Each rank is slow in some steps, before it is ready or before it looks at the result."""
    run, alone = Run("exact", hosts, "two-level"), Run("exact", SerialCommunicator(), "auto")
    for step in range(8):
        slow = step % hosts.size == hosts.rank
        result = run.step(step % 4, lambda slow=slow: time.sleep(0.02 * slow))
        time.sleep(0.02 * (step % hosts.size == hosts.size - 1 - hosts.rank))
        assert result == alone.step(step % 4) == run.exchange.result.tobytes()


def test_all_ranks_count_the_same_calls(hosts):
    """Whether they have a lane or not, so that a watch can tell who keeps the others waiting."""
    run = Run("exact", hosts, "leaders", bucket_bytes=5000)
    hosts.position.begin_step(5)
    run.step(0)
    reached = hosts.position.reached
    assert hosts.allgather(reached) == [reached] * hosts.size
    assert reached[2] > 8 * SIZE // 5000


def test_groups_are_made_once(hosts):
    even = hosts.split(hosts.rank % 2)
    assert even is hosts.split(hosts.rank % 2)
    assert even.size == (hosts.size + 1 - hosts.rank % 2) // 2
    assert [process.rank for process in even.processes] == list(range(even.size))
    assert hosts.split(0).size == hosts.size
