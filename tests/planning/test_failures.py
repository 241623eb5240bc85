"""Failures: the formula, and the runs that are played, which have to agree where both apply."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distnet.planning.failures import Failures
from distnet.planning.links import Link
from distnet.planning.model import Cluster, Way, Workload
from distnet.planning.simulation import MOST_FAILURES, MOST_IN_VAIN, POLICIES, Stragglers, play

LOAD = Workload(1000, 64, 1, micro_batch_seconds=0.5)
CLUSTER = Cluster(16, 1, Link.of(0.0, 1e15))
NEVER, NOBODY = Failures(), Stragglers()
LOCAL = Way(islands=16, sync_every=10)


def played(policy, failures=NEVER, stragglers=NOBODY, steps=500, seed=0, load=LOAD):
    way = LOCAL if policy == "islands" else Way()
    return play(policy, load, way, CLUSTER, failures, stragglers, steps, seed)


@pytest.mark.parametrize("policy", POLICIES)
def test_without_failures_a_run_takes_its_steps(policy):
    run = played(policy)
    assert run.seconds == pytest.approx(500 * 4 * 0.5)
    assert (run.num_failures, run.num_done, run.num_hosts) == (0, 500, 16)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_seed_decides(policy):
    failures, slow = Failures(mtbf_seconds=4000), Stragglers(0.01)
    one, same, other = (played(policy, failures, slow, seed=seed) for seed in (1, 1, 2))
    assert one == same != other


def test_restarts_cost_what_the_formula_says():
    failures = Failures(
        16 * 900.0, restart_seconds=60, checkpoint_seconds=2, checkpoint_interval=100
    )
    runs = [played("restart", failures, steps=2000, seed=seed) for seed in range(12)]
    mean = sum(run.seconds for run in runs) / len(runs)
    assert mean / (2000 * 2) == pytest.approx(failures.factor(16), rel=0.05)


def test_the_best_interval_is_the_best():
    failures = Failures(16 * 900.0, 60, checkpoint_seconds=2)
    best = failures.interval(16)
    assert best == pytest.approx(math.sqrt(2 * 2 * 900))
    around = [replace(failures, checkpoint_interval=best * x).factor(16) for x in (0.5, 1, 2)]
    assert around[1] < min(around[0], around[2])


def test_who_goes_on_live_loses_less_and_has_fewer_hosts():
    failures = Failures(16 * 300.0, restart_seconds=60)
    restart, live = (played(policy, failures) for policy in ("restart", "live"))
    assert live.lost_seconds < restart.lost_seconds
    assert 8 <= live.num_hosts < 16 == restart.num_hosts


def test_islands_wait_less_for_those_that_are_slow_at_times():
    slow = Stragglers(0.05, factor=4)
    assert (
        played("islands", stragglers=slow).seconds < 0.8 * played("live", stragglers=slow).seconds
    )


def test_a_run_that_gets_nowhere_is_given_up():
    run = played("restart", Failures(16.0, restart_seconds=10, checkpoint_interval=1e6), steps=9999)
    assert run.given_up and MOST_IN_VAIN <= run.num_failures < MOST_FAILURES
    run = played("live", Failures(1e-9, repair_seconds=10))
    assert run.given_up and run.num_failures == MOST_IN_VAIN


def test_a_run_that_gets_on_is_given_up_after_many_failures():
    run = played("live", Failures(30.0, repair_seconds=0), steps=99999)
    assert run.given_up and run.num_failures == MOST_FAILURES


def test_hosts_that_never_fail_cost_nothing():
    assert NEVER.factor(4096) == 1 and NEVER.interval(4096) == math.inf
