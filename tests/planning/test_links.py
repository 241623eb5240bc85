"""All-reduces as sequences of exchanges: their costs by the formulas of the literature."""

from __future__ import annotations

import math

import pytest

from distnet.planning.links import ALGORITHMS, Link, reduction

LATENCY, RATE = 1e-3, 1e8
LINK = Link.of(LATENCY, RATE)
MANY = 1 << 20


@pytest.mark.parametrize("p", [2, 4, 8, 64, 4096])
@pytest.mark.parametrize(
    "algorithm, delays, sent",
    [  # Thakur, Rabenseifner and Gropp 2005, section 4.5, without the additions
        ("doubling", lambda p: math.log2(p), lambda p, n: n * math.log2(p)),
        ("halving", lambda p: 2 * math.log2(p), lambda p, n: 2 * n * (p - 1) / p),
        ("ring", lambda p: 2 * (p - 1), lambda p, n: 2 * n * (p - 1) / p),
        ("direct", lambda p: 1 if p == 2 else 2, lambda p, n: 2 * n * (p - 1) / p),
    ],
)
def test_costs_are_those_of_the_formulas(p, algorithm, delays, sent):
    cost = reduction(LINK, algorithm, p, MANY, MANY)
    assert cost.delay_seconds == pytest.approx(delays(p) * LATENCY)
    assert cost.sent_bytes == pytest.approx(sent(p, MANY))
    assert cost.transfer_seconds == pytest.approx(sent(p, MANY) / RATE)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_host_has_nobody_to_send_to(algorithm):
    assert reduction(LINK, algorithm, 1, MANY, MANY).seconds == 0


@pytest.mark.parametrize("p, rounds, sent", [(3, 4, 2.0), (5, 6, 2.5), (6, 6, 2.5)])
def test_beyond_a_power_of_two_hosts_hand_over_and_get_back(p, rounds, sent):
    """Counted on the interfaces of three hosts: 1.0, 2.0 and 1.0 times the bytes of the array."""
    cost = reduction(LINK, "mpich", p, MANY, MANY)
    assert cost.delay_seconds == pytest.approx(rounds * LATENCY)
    assert cost.sent_bytes == pytest.approx(sent * MANY)


def test_buckets_take_the_delays_of_one_and_the_transfer_of_all():
    whole, cut = (reduction(LINK, "ring", 8, MANY, size) for size in (MANY, MANY // 16))
    assert cut.delay_seconds == pytest.approx(whole.delay_seconds)
    assert cut.transfer_seconds == pytest.approx(whole.transfer_seconds)


def test_mpich_takes_fewer_rounds_for_what_is_short():
    assert reduction(LINK, "mpich", 16, 8, MANY).delay_seconds == pytest.approx(4 * LATENCY)
    assert reduction(LINK, "mpich", 16, MANY, MANY).delay_seconds == pytest.approx(8 * LATENCY)


def test_a_delay_may_grow_with_the_size_and_is_read_between_what_was_measured():
    sizes = 8, 1024, 131072, MANY  # beyond 2 KB a sum of two hosts is two exchanges of its half
    seconds = [0.020, 0.020, *(2 * 0.060 + size / RATE for size in sizes[2:])]
    link = Link.measured(sizes, seconds)
    assert link.bytes_per_second == pytest.approx(RATE)
    assert link.delay(8) == pytest.approx(0.020, rel=1e-3)
    assert link.delay(8192) == pytest.approx(0.040, rel=0.01)  # halfway of 2^10 and 2^16
    assert link.delay(1 << 30) == pytest.approx(0.060)
