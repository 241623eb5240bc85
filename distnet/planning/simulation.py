"""Plays a run of thousands of steps on hosts that are slow at times, and fail: by a seed.

Three ways to live with failures are played with the same seed:

* restart: the job ends with the first lost rank, and is started again, with all hosts, from its
  last checkpoint;
* live: the other ranks compute the step in flight again, and go on as fewer;
* islands: the same with rare synchronisation; all islands begin again at their last one.

A run that has gone on with fewer than half of its hosts is stopped after a step and resumed with
all of them, which costs a restart and no step.

Times of a rank are lognormal, with the mean and deviation of the workload; with the probability
`straggler_share` it is `straggler_factor` times as slow in a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.parallel.dealing import deal
from distnet.planning.failures import Failures
from distnet.planning.model import (
    Cluster,
    Prediction,
    Way,
    Workload,
    predict,
    work_of_islands,
)

LEAST_PART = 0.5  # of the hosts, with which a run goes on
POLICIES = ("restart", "live", "islands")
# After so many failures a run is given up, and after so many in a row without getting further.
MOST_FAILURES, MOST_IN_VAIN = 10_000, 1_000


@dataclass(frozen=True)
class Stragglers:
    """How often a rank is slow in a step, and how slow."""

    share: float = 0.0
    factor: float = 5.0


@dataclass
class Played:
    """What became of a run: its seconds, of these for steps that were lost, and for going on.

    num_done: steps that count; num_hosts: at the end. given_up: whether it got nowhere.
    """

    seconds: float = 0.0
    lost_seconds: float = 0.0
    down_seconds: float = 0.0
    num_failures: int = 0
    num_done: int = 0
    num_hosts: int = 0
    given_up: bool = False


def play(
    policy: str,
    workload: Workload,
    way: Way,
    cluster: Cluster,
    failures: Failures,
    stragglers: Stragglers,
    num_steps: int,
    seed: int,
) -> Played:
    """A run of `num_steps` steps by one of the POLICIES; way: that of "islands" has islands."""
    run = _Run(policy, workload, way, cluster, failures, stragglers, seed)
    while run.played.num_done < num_steps and not run.played.given_up:
        run.advance(min(run.stride, num_steps - run.played.num_done))
    run.played.num_hosts = run.cluster.num_hosts
    return run.played


class _Run:
    """A run that is being played; `stride`: steps from one common state to the next."""

    def __init__(
        self,
        policy: str,
        workload: Workload,
        way: Way,
        cluster: Cluster,
        failures: Failures,
        stragglers: Stragglers,
        seed: int,
    ) -> None:
        self.policy, self.workload, self.way = policy, workload, way
        self.whole = self.cluster = cluster
        self.failures, self.stragglers = failures, stragglers
        self.played = Played()
        self.stride = way.sync_every if way.islands else 1
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._chance = np.random.Generator(np.random.Philox(seed + 1))  # the same for all policies
        self._saved, self._since_saved = 0, 0.0  # steps, seconds of progress since
        self._furthest, self._num_in_vain = 0, 0  # steps, failures since it was further than that
        self._until_failure = math.inf
        self._known: dict[int, tuple[Prediction, Array]] = {}  # by the number of hosts
        self._join(cluster)

    def advance(self, num_steps: int) -> None:
        """From one common state to the next, or a failure on the way."""
        played = self.played
        seconds = self._seconds(num_steps)
        if seconds < self._until_failure:
            self._pass(seconds)
            self._since_saved += seconds
            played.num_done += num_steps
            self._save_if_due()
            return
        seconds = self._until_failure
        self._pass(seconds)
        played.num_failures += 1
        played.lost_seconds += seconds
        self._give_up_in_vain()
        if self.policy == "restart":
            self._restart()
        else:
            self._go_on()

    def _give_up_in_vain(self) -> None:
        """Whether there have been too many failures."""
        played, self._num_in_vain = self.played, self._num_in_vain + 1
        if played.num_done > self._furthest:
            self._furthest, self._num_in_vain = played.num_done, 0
        played.given_up = played.num_failures >= MOST_FAILURES or self._num_in_vain >= MOST_IN_VAIN

    def _pass(self, seconds: float) -> None:
        self.played.seconds += seconds
        self._until_failure -= seconds

    def _join(self, cluster: Cluster) -> None:
        """The hosts are these from now on."""
        self.cluster = cluster
        if cluster.num_hosts not in self._known:
            prediction = predict(self.workload, self.way, cluster)
            self._known[cluster.num_hosts] = prediction, self._shares()
        self._prediction, self._micro_batches = self._known[cluster.num_hosts]
        rate = self.failures.rate(cluster.num_hosts)
        self._until_failure = self._chance.exponential(1 / rate) if rate else math.inf

    def _restart(self) -> None:
        """Back to the last checkpoint."""
        self.played.lost_seconds += self._since_saved
        self.played.num_done, self._since_saved = self._saved, 0.0
        self._wait(self.failures.restart_seconds, self.whole)

    def _go_on(self) -> None:
        """Without the lost host, or with all, if too few are left."""
        left = self.cluster.num_hosts - 1
        if left >= max(1, LEAST_PART * self.whole.num_hosts):
            self._wait(self.failures.repair_seconds, replace(self.cluster, num_hosts=left))
        else:
            self._wait(self.failures.restart_seconds, self.whole)

    def _wait(self, seconds: float, cluster: Cluster) -> None:
        self.played.seconds += seconds
        self.played.down_seconds += seconds
        self._join(cluster)

    def _save_if_due(self) -> None:
        """A checkpoint, where one is needed."""
        is_due = self._since_saved >= self.failures.interval(self.whole.num_hosts)
        if self.policy == "restart" and is_due:
            self._pass(self.failures.checkpoint_seconds)
            self.played.down_seconds += self.failures.checkpoint_seconds
            self._saved, self._since_saved = self.played.num_done, 0.0

    def _seconds(self, num_steps: int) -> float:
        """Seconds of so many steps: of the slowest ranks, and of what is the same for all."""
        step = self._prediction
        same = num_steps * (step.exposed_seconds + step.alone_seconds)
        return float(self._slowest(self._drawn(num_steps))) + same

    def _drawn(self, num_steps: int) -> Array:
        """Seconds of computing of every rank in every step, (steps, ranks)."""
        shares = self._micro_batches
        c, deviation = self.workload.micro_batch_seconds, self.workload.deviation
        spread = np.log1p(deviation**2 / np.maximum(shares, 1))
        shape = num_steps, shares.size
        normal = self._generator.standard_normal(shape)
        times = c * shares * np.exp(np.sqrt(spread) * normal - spread / 2)
        if self.stragglers.share:
            is_slow = self._generator.random(shape) < self.stragglers.share
            times[is_slow] *= self.stragglers.factor
        return times

    def _shares(self) -> Array:
        """Micro-batches of each rank in a step."""
        ranks, islands = self.cluster.num_ranks, self.way.islands
        if not islands:
            total = ceil_divide(self.workload.batch_size, self.workload.micro_batch_size)
            return np.array([len(deal(total, rank, ranks)) for rank in range(ranks)])
        work = work_of_islands(self.workload, self.way)
        if ranks <= islands:
            dealt = [deal(islands, rank, ranks) for rank in range(ranks)]
            return np.array([sum(work[island] for island in each) for each in dealt])
        sizes = [len(deal(ranks, island, islands)) for island in range(islands)]
        return np.array(
            [
                len(deal(math.ceil(n), rank, size))
                for n, size in zip(work, sizes, strict=True)
                for rank in range(size)
            ]
        )

    def _slowest(self, times: Array) -> float:
        """Ranks wait for those of their island after each step, for all after the last one."""
        ranks, islands = self.cluster.num_ranks, self.way.islands
        if not islands:
            return float(times.max(axis=1).sum())
        starts = [0] if ranks <= islands else [deal(ranks, i, islands)[0] for i in range(islands)]
        if ranks > islands:
            times = np.maximum.reduceat(times, starts, axis=1)
        return float(times.sum(axis=0).max())
