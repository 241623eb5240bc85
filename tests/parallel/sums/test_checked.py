"""Sums that are not what was sent are found, however they travel; right ones stay as they are."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import test_two_level as simulated

from distnet.parallel import SerialCommunicator, make_reducer
from distnet.parallel.errors import NonFiniteGradient, RankAtFault
from distnet.parallel.sums.checked import LENGTH, MODULUS, Weights, make_checked_reducer
from distnet.parallel.sums.exchange import Messages
from distnet.parallel.sums.shared import SharedMemory
from distnet.parallel.sums.two_level import TwoLevels

hosts = simulated.hosts  # a fixture: ranks that believe to be on several hosts
SIZE, NUM_MICRO_BATCHES = 40_001, 7
VICTIM = 1
KINDS = ["exact", "exact32"]


class Run:
    """A reducer with checks, beside one without them in a process of its own."""

    def __init__(self, kind, comm, exchange="auto", bucket_bytes=0):
        self.comm, self.gradients = comm, np.zeros(SIZE, np.float32)
        options = {"num_contributions": NUM_MICRO_BATCHES, "bucket_bytes": bucket_bytes}
        self.reducer = make_checked_reducer(
            kind, comm, self.gradients, 1, exchange=exchange, num_slots=1, **options
        )
        self.alone = make_reducer(kind, SerialCommunicator(), self.gradients, 1, **options)

    def step(self, step):
        """The sum, which has to be that without checks."""
        values = np.random.default_rng(step).standard_normal((NUM_MICRO_BATCHES, SIZE)) * 1e-4
        mine = range(self.comm.rank, NUM_MICRO_BATCHES, self.comm.size)
        for reducer, ms in (self.reducer, mine), (self.alone, range(NUM_MICRO_BATCHES)):
            reducer.start(ms)
            for m in ms:
                self.gradients[:] = values[m]
                for offset in range(SIZE - 1, 0, -(SIZE // 5)):
                    reducer.ready(offset)
                reducer.add(m, np.full(1, m))
        expected = [array.tobytes() for array in self.alone.finish()]
        assert [array.tobytes() for array in self.reducer.finish()] == expected


def flip(array, bit, index):
    words = array.view(f"u{array.itemsize}")
    words[index] ^= words.dtype.type(1 << bit)


def test_a_check_is_linear_and_does_not_depend_on_the_cuts():
    rng, weights = np.random.default_rng(0), Weights(SIZE)
    a, b = rng.integers(-(2**60), 2**60, (2, SIZE))
    check = weights.check(a)
    assert (check + weights.check(b) - weights.check(a + b)) % MODULUS == 0
    cuts = [0, 1, LENGTH - 1, LENGTH, 2 * LENGTH + 7, SIZE]
    pieces = [weights.check(a[i:j], i) for i, j in pairwise(cuts)]
    assert sum(pieces) % MODULUS == check
    small = (a >> 40).astype(np.int32)
    assert weights.check(small) == weights.check(small.astype(np.int64))


def test_every_bit_of_every_element_counts():
    weights, values = Weights(LENGTH + 9), np.zeros(LENGTH + 9, np.int64)
    for index in (0, 5, LENGTH - 1, LENGTH, LENGTH + 8):
        checks = set()
        for bit in range(64):
            flip(values, bit, index)
            checks.add(weights.check(values))
            flip(values, bit, index)
        assert len(checks - {0}) == 64


@pytest.mark.parametrize("bucket_bytes", [0, 5000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange", ["shared", "messages"])
@pytest.mark.mpi(min_size=3)
def test_right_sums_pass_as_they_are(comm, exchange, kind, bucket_bytes):
    run = Run(kind, comm, exchange, bucket_bytes)
    for step in range(3):
        run.step(step)


@pytest.mark.parametrize("exchange", ["two-level", "leaders", "messages"])
@pytest.mark.parametrize("kind", KINDS)
def test_so_do_those_of_several_hosts(hosts, kind, exchange):
    run = Run(kind, hosts, exchange)
    for step in range(2):
        run.step(step)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange", ["shared", "messages"])
@pytest.mark.mpi(min_size=3)
def test_a_rank_whose_own_sum_changes_is_named(comm, exchange, kind):
    """A bit of its memory, between two contributions."""
    run = Run(kind, comm, exchange)
    run.step(0)
    add = run.reducer.add

    def then_flip(micro_batch, tally):
        add(micro_batch, tally)
        if micro_batch == VICTIM:  # its first one
            flip(run.reducer.exchange.total, 5, 17)

    run.reducer.add = then_flip
    with pytest.raises(RankAtFault, match="what it has added up is not the sum") as caught:
        run.step(1)
    assert caught.value.ranks == [VICTIM]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "size", [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (2, 3)]
)
def test_a_rank_that_receives_another_total_is_named(comm, size, kind):
    run = Run(kind, comm, "messages")
    convert = run.reducer.checked.convert

    def other(total, start, out):
        if comm.rank == VICTIM:
            flip(total, 9, 11)
        convert(total, start, out)

    run.reducer.checked.convert = other
    with pytest.raises(RankAtFault, match="what it has received is not the sum") as caught:
        run.step(0)
    assert caught.value.ranks == [VICTIM]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exchange, way", [("shared", SharedMemory), ("messages", Messages)])
@pytest.mark.mpi(min_size=3)
def test_a_total_that_is_wrong_for_all_is_found(comm, exchange, way, kind):
    """What a rank sends changes when it is on its way: all ranks read the same wrong total."""
    run = Run(kind, comm, exchange)
    assert isinstance(run.reducer.exchange, way)
    damage_what_is_sent(run)
    with pytest.raises(RankAtFault, match="the total of the gradients is not the sum") as caught:
        run.step(0)
    assert caught.value.ranks == []


@pytest.mark.parametrize("exchange", ["two-level", "leaders"])
@pytest.mark.parametrize("kind", KINDS)
def test_so_is_that_of_several_hosts(hosts, kind, exchange):
    run = Run(kind, hosts, exchange)
    assert isinstance(run.reducer.exchange, TwoLevels)
    damage_what_is_sent(run)
    with pytest.raises(RankAtFault):
        run.step(0)


def damage_what_is_sent(run):
    exchange, begin = run.reducer.exchange, run.reducer.exchange.begin

    def damaged(bucket):
        if run.comm.rank == VICTIM and bucket.start == 0:
            flip(exchange.total, 40, 3)
        return begin(bucket)

    exchange.begin = damaged


@pytest.mark.mpi(min_size=2)
def test_scales_stay_as_they_were_when_a_sum_is_refused(comm):
    """So that the step can be made again, without the rank at fault, with the same bits."""
    run = Run("exact32", comm, "messages")
    run.step(0)
    before = {name: array.copy() for name, array in run.reducer.state.items()}
    damage_what_is_sent(run)
    with pytest.raises(RankAtFault):
        run.step(1)
    for name, array in run.reducer.state.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.mpi(min_size=2)
def test_what_cannot_be_summed_has_no_answer(comm):
    run = Run("exact", comm)
    run.gradients[7] = np.nan
    assert run.reducer.answer(np.zeros(1)) is None
    run.gradients[7] = 0
    assert run.reducer.answer(np.full(1, np.inf)) is None
    assert run.reducer.answer(np.zeros(1)) == 0
    run.reducer.start(range(1))
    run.gradients[7] = np.inf
    run.reducer.add(0, np.zeros(1))
    with pytest.raises(NonFiniteGradient):
        run.reducer.finish()
