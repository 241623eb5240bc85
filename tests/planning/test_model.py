"""The model of a step: what it must give where the answer is known, and that it is monotonic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from distnet.parallel import REDUCTIONS
from distnet.planning.links import Link
from distnet.planning.memory import bytes_of_rank
from distnet.planning.model import Cluster, Way, Workload, expected_maximum, predict

NO_LINK = Link.of(0.0, 1e15)
SLOW = Link.of(0.02, 1e7)
LOAD = Workload(1_000_000, 800, 25, micro_batch_seconds=0.01)
STEP, LOCAL = Way(), Way(islands=4, sync_every=50)


def on(num_hosts, link=NO_LINK, ranks_per_host=1):
    return Cluster(num_hosts, ranks_per_host, link)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 32])
def test_without_a_network_ranks_share_the_work_evenly(ranks):
    step = predict(LOAD, STEP, on(ranks))
    assert step.seconds == pytest.approx(0.32 / ranks, rel=1e-5)
    assert step.images_per_second == pytest.approx(800 * ranks / 0.32, rel=1e-5)


@pytest.mark.parametrize("ranks, most", [(3, 11), (5, 7), (33, 1), (64, 1)])
def test_the_rank_with_most_micro_batches_decides(ranks, most):
    assert predict(LOAD, STEP, on(ranks)).seconds == pytest.approx(most * 0.01, rel=1e-5)


@pytest.mark.parametrize("count", [2, 4, 16, 256])
def test_the_largest_of_normal_numbers(count):
    drawn = np.random.default_rng(0).standard_normal((4000, count)).max(axis=1).mean()
    assert expected_maximum(count) == pytest.approx(drawn, abs=0.03)


def test_the_larger_of_two_normal_numbers():
    assert expected_maximum(1) == 0
    assert expected_maximum(2) == pytest.approx(np.pi**-0.5)


def test_what_varies_costs_more_on_more_ranks_and_less_with_islands():
    load = replace(LOAD, deviation=0.2)
    waits = [predict(load, STEP, on(ranks)).varying_seconds for ranks in (1, 2, 4)]
    assert waits[0] == 0 < waits[1]
    rare = predict(load, LOCAL, on(4)).varying_seconds
    assert rare == pytest.approx(waits[2] / 50**0.5)


def test_messages_hide_behind_the_window_as_far_as_it_is_long():
    exposed = [
        predict(replace(LOAD, window_seconds=w), STEP, on(2, SLOW)).exposed_seconds
        for w in (0.0, 0.3, 0.6, 10.0)
    ]
    assert exposed[0] == pytest.approx(0.04 + 0.8)  # two delays, and 8 bytes a number at 10 MB/s
    assert exposed[1] == pytest.approx(exposed[0] - 0.3)
    # However long the window is, the last of 123 buckets of 64 KiB leaves at its end.
    assert exposed[3] == pytest.approx(0.04 + 0.8 / 123)


def test_bytes_are_those_of_the_format():
    sent = {kind: predict(LOAD, Way(kind), on(2, SLOW)).sent_bytes for kind in ("exact", "exact32")}
    assert sent == {"exact": 8e6, "exact32": 4e6}


@pytest.mark.parametrize("algorithm", ["mpich", "ring"])
@pytest.mark.parametrize("hosts, exchanges", [(2, 1), (4, 2), (8, 2)])
def test_few_hosts_with_several_ranks_send_narrow_numbers_by_themselves(
    hosts, exchanges, algorithm
):
    way = Way(algorithm=algorithm)
    step = predict(LOAD, way, on(hosts, SLOW, ranks_per_host=2))
    sent = 2 * (hosts - 1) / hosts * 4.75e6  # bytes, of eight
    assert step.sent_bytes == pytest.approx(sent)
    messages = exchanges * 0.02 + sent / 1e7
    assert step.exposed_seconds == pytest.approx(messages)
    assert step.alone_seconds == pytest.approx(1e6 * LOAD.memory_seconds)  # within each host
    one_each = predict(LOAD, way, on(hosts, SLOW))
    assert one_each.sent_bytes == pytest.approx(8 / 4.75 * sent)


def test_islands_send_rarely_and_in_bursts():
    step = predict(LOAD, LOCAL, on(4, SLOW))
    assert step.burst_bytes == pytest.approx(1.5e6, rel=0.01)  # a byte a number
    assert step.sent_bytes == pytest.approx(step.burst_bytes / 50)


def test_ranks_that_share_an_island_sum_its_gradients():
    alone, shared = (predict(LOAD, LOCAL, on(ranks, SLOW)) for ranks in (4, 8))
    assert shared.sent_bytes > 8e6 > alone.sent_bytes
    within = predict(LOAD, LOCAL, on(4, SLOW, ranks_per_host=2))
    assert within.sent_bytes < 1e6


@pytest.mark.parametrize("ranks, most", [(1, 6), (2, 3), (3, 3), (4, 2)])
def test_islands_whose_parts_are_uneven(ranks, most):
    """Six micro-batches in four islands: 1, 2, 1 and 2."""
    load = replace(LOAD, batch_size=6, micro_batch_size=1)
    step = predict(load, Way(islands=4, sync_every=10**6), on(ranks))
    assert step.seconds == pytest.approx(most * 0.01, rel=1e-4)


@pytest.mark.parametrize("way", [STEP, Way(islands=32, sync_every=10**6)])
def test_what_is_shorter_than_a_micro_batch_takes_less(way):
    load = replace(LOAD, batch_size=320)  # 12.8 micro-batches, or 0.4 of one in each island
    assert predict(load, way, on(1)).seconds == pytest.approx(0.128, rel=1e-4)


def test_one_island_that_meets_after_every_step_computes_as_all_do():
    one = predict(LOAD, Way(islands=1, sync_every=1), on(1))
    assert one.seconds == pytest.approx(predict(LOAD, STEP, on(1)).seconds)


@pytest.mark.parametrize("reduction, share", [("exact", 4.75 / 8), ("exact32", 1)])
def test_ranks_of_a_host_send_what_one_would_or_less(reduction, share):
    """In 4.75 bytes what MPI sends in eight, as long as hosts are few."""
    way = Way(reduction=reduction)
    one, four = (predict(LOAD, way, on(2, SLOW, n)) for n in (1, 4))
    assert four.sent_bytes == pytest.approx(share * one.sent_bytes)
    one, four = (predict(LOAD, way, on(16, SLOW, n)) for n in (1, 4))
    assert four.sent_bytes == pytest.approx(one.sent_bytes)


def test_shares_of_the_parameters_are_told_to_the_other_hosts():
    whole, shared = (predict(LOAD, Way(shards=s), on(4, SLOW)) for s in (False, True))
    assert shared.sent_bytes - whole.sent_bytes == pytest.approx(4e6 * 3 / 4)
    assert shared.seconds - whole.seconds == pytest.approx(2 * 0.02 + 0.3)


@pytest.mark.parametrize("reduction, size", [("exact", 8), ("exact32", 8 + 4), ("float16", 4 + 2)])
def test_memory_of_sums_follows_from_their_format(monkeypatch, reduction, size):
    monkeypatch.setitem(REDUCTIONS, "mine", REDUCTIONS[reduction])
    for name in (reduction, "mine"):
        assert bytes_of_rank(1000, 2, Way(reduction=name), 4)["sums"] == 1000 * (size + 4)


def test_memory_of_a_rank():
    held = bytes_of_rank(1000, 2, STEP, 4)
    assert held == {"parameters": 4000, "gradients": 4000, "optimizer": 8000, "sums": 12000}
    assert bytes_of_rank(1000, 2, Way(shards=True), 4)["optimizer"] == 2000
    assert bytes_of_rank(1000, 2, LOCAL, 4)["islands"] == 4000 * (3 + 4 * 3)
