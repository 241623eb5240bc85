"""Whole numbers that travel as int32: the same bits as the same numbers in int64, however sent."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.parallel import Reducer, SerialCommunicator, make_reducer
from distnet.parallel.sums.exact32 import FINEST_BITS, GROUP, TARGET_BITS, Exact32
from distnet.parallel.sums.exchange import Messages

SIZE = 3 * GROUP + 1000
NUM_MICRO_BATCHES = 5
NO_TALLY = np.zeros(0)


def gradients(step, jump=1.0):
    """Of all micro-batches of a step: groups of different magnitude; later steps are larger."""
    generator = np.random.default_rng(step)
    magnitudes = np.repeat([1e-6, 1.0, 1e-3, 0.03], [1000, GROUP, GROUP, GROUP]) * jump
    values = generator.standard_normal((NUM_MICRO_BATCHES, SIZE)) * magnitudes
    return values.astype(np.float32)


def make(comm, bucket_bytes=1 << 16):
    """A reducer that sends messages, also on one host, and the vector that it reads."""
    gradients = np.zeros(SIZE, np.float32)
    exchange = Messages(comm, Exact32(SIZE, NUM_MICRO_BATCHES))
    return Reducer(comm, exchange, gradients, 0, bucket_bytes=bucket_bytes), gradients


def run_step(run, contributions, rank=0, size=1):
    (reducer, gradients), mine = run, range(rank, NUM_MICRO_BATCHES, size)
    reducer.start(mine)
    for m in mine:
        gradients[:] = contributions[m]
        for offset in (SIZE - 100, 2 * GROUP, 700):
            reducer.ready(offset)
        reducer.add(m, NO_TALLY)
    return reducer.finish()[0].copy()


def independent(contributions, previous):
    """The total in whole numbers of each group's unit, which the total before it decides."""
    total = np.empty(SIZE)
    for stop in range(SIZE, 0, -GROUP):
        group = slice(max(stop - GROUP, 0), stop)
        largest = 0.0 if previous is None else float(np.abs(previous[group]).max())
        exponent = np.floor(np.log2(largest)) + 1 if largest else TARGET_BITS - FINEST_BITS
        unit = 2.0 ** -min(TARGET_BITS - exponent, FINEST_BITS)
        whole = np.rint(contributions[:, group].astype(np.float64) / unit).astype(np.int64)
        total[group] = whole.sum(axis=0) * unit
    return total.astype(np.float32)


JUMPS = [1.0, 1.1, 1e3, 1e-4, 0.0, 2.0]


@pytest.mark.parametrize("bucket_bytes", [1 << 13, 1 << 16, 1 << 20])
def test_bits_are_those_of_whole_numbers(any_comm, bucket_bytes):
    """On any number of ranks, in any buckets, for growing, shrinking and vanishing gradients."""
    run, previous, repeats = make(any_comm, bucket_bytes), None, []
    for step, jump in enumerate(JUMPS):
        contributions = gradients(step, jump)
        expected = independent(contributions, previous)
        total = run_step(run, contributions, any_comm.rank, any_comm.size)
        assert total.tobytes() == expected.tobytes()
        repeats.append(run[0].exchange.num_repeats > 0)
        previous = expected
    assert repeats == [True, False, True, False, False, True]


def test_shared_memory_has_the_bits_of_messages(any_comm):
    """Ranks of one host add up the whole numbers themselves: nothing has to fit."""
    vector = np.zeros(SIZE, np.float32)
    shared = make_reducer("exact32", any_comm, vector, 0, num_contributions=NUM_MICRO_BATCHES)
    runs = (shared, vector), make(any_comm)
    for step, jump in enumerate(JUMPS):
        contributions, ranks = gradients(step, jump), (any_comm.rank, any_comm.size)
        first, second = (run_step(run, contributions, *ranks) for run in runs)
        assert first.tobytes() == second.tobytes()


def test_a_resumed_run_goes_on_with_the_same_bits():
    """With the state of the one before it; and without it, others."""
    runs = [make(SerialCommunicator()) for _ in range(3)]
    for step in range(3):
        run_step(runs[0], gradients(step))
    first, second = (reducer.state["scale_bits"] for reducer, _ in runs[:2])
    np.copyto(second, first)
    first, second, third = (run_step(run, gradients(3)) for run in runs)
    assert first.tobytes() == second.tobytes() != third.tobytes()


def test_scales_follow_the_total_of_valid_steps_alone():
    run = make(SerialCommunicator())
    bits = run[0].state["scale_bits"]
    assert bits.tolist() == [FINEST_BITS] * 4
    total = run_step(run, gradients(0))
    for number, stop in enumerate(range(SIZE, 0, -GROUP)):
        largest = np.abs(total[max(stop - GROUP, 0) : stop]).max()
        scaled = float(largest) * 2.0 ** bits[number]
        assert 2 ** (TARGET_BITS - 1) <= scaled < 2**TARGET_BITS or bits[number] == FINEST_BITS
    before = bits.copy()
    broken = gradients(1)
    broken[2, 5] = np.nan
    with pytest.raises(Exception, match="element 5 of the gradient"):
        run_step(run, broken)
    assert bits.tolist() == before.tolist()


def test_sums_at_the_edge_of_int32(any_comm):
    """All ranks together just inside the bound travel as int32; just outside, again as int64."""
    contribution = np.zeros((any_comm.size, 4), np.float32)
    mine = contribution[any_comm.rank]
    exchange = Messages(any_comm, Exact32(4, any_comm.size))
    reducer = Reducer(any_comm, exchange, mine, 0)
    unit = 2.0**-FINEST_BITS
    inside = (2**15 // any_comm.size * 2**16 - 2**10) * unit  # 2^10: float32 holds it exactly
    for value, repeats in ((inside, 0), (2 * inside + 2**17 * unit, 1)):
        reducer.state["scale_bits"][:] = FINEST_BITS
        contribution[:] = [value, -value, 0, unit]
        reducer.start([0])
        reducer.add(0, NO_TALLY)
        total, _ = reducer.finish()
        expected = contribution.astype(np.float64).sum(axis=0).astype(np.float32)
        assert total.tolist() == expected.tolist()
        assert reducer.exchange.num_repeats == repeats
