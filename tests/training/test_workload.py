"""Figures of all ranks: shares, the slowest, and the speeds by which work is dealt."""

from __future__ import annotations

import pytest

from distnet.parallel import SerialCommunicator
from distnet.training.watching.workload import FINENESS, RankWork, Workload, WorkloadMeter


def ranks(*rows):
    """Loads of ranks from (micro-batches, seconds computing, seconds waiting)."""
    return Workload(
        [RankWork(10, count, compute + wait, wait, 1000 * count) for count, compute, wait in rows]
    )


def test_shares_of_all_ranks():
    load = ranks((20, 4.0, 0.0), (20, 1.0, 3.0))
    assert (load.wait_share, load.slowest, load.bytes_per_step) == (3 / 8, 0, 2000)


def test_speeds_are_relative_to_the_fastest():
    assert ranks((20, 4.0, 0.0), (20, 1.0, 3.0)).speeds(None) == (FINENESS // 4, FINENESS)
    assert ranks((20, 1.0, 0.0), (1, 1000.0, 0.0)).speeds(None) == (FINENESS, 1)


@pytest.mark.parametrize("before, expected", [(None, FINENESS), ((1, 2, 7), 14)])
def test_a_rank_without_micro_batches_gets_another_chance(before, expected):
    load = ranks((20, 2.0, 0.0), (20, 4.0, 0.0), (0, 0.1, 1.0))
    assert load.speeds(before) == (FINENESS, FINENESS // 2, expected)


def test_an_epoch_without_steps():
    load = Workload([RankWork()])
    assert (load.wait_share, load.slowest, load.bytes_per_step) == (0, 0, 0)
    assert load.speeds(None) == (FINENESS,)


def test_a_meter_begins_anew_with_the_step_after_it_was_read():
    step = RankWork(1, 3, 0.5, 0.25, 100)
    meter, comm = WorkloadMeter(), SerialCommunicator()
    for _ in range(4):
        meter.step(step)
    for _ in range(2):  # a loss of ranks may make it necessary to ask again
        (own,) = meter.gather(comm).ranks
        assert (own.num_steps, own.num_micro_batches) == (4, 12)
        assert (own.seconds, own.wait_seconds, own.bytes_sent) == (2.0, 1.0, 400)
    meter.step(step)
    assert meter.gather(comm).ranks[0].num_steps == 1
