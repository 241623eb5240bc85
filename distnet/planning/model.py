"""The model of a step: from what was measured on few ranks to what many will take.

All ranks share the micro-batches of a step; the slowest of them decides. Its gradients leave in
buckets during backward of its last micro-batch, the *window*; what the link has not carried by the
end of it is waited for. With W the transfer of all B buckets, w the window and a the delays of one:

    step = micro-batches of the slowest rank + a + max(W - w, W / B) + what each rank does alone

The slowest of p ranks, whose m micro-batches take c each with standard deviation s, takes
m c + s sqrt(m) E(p), where E(p) is the expected maximum of p normal numbers. With islands, which
meet every H steps, m is H times as large: what varies averages out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from statistics import NormalDist

from distnet.base.arrays import ceil_divide
from distnet.base.words import counted
from distnet.parallel import CHANGES, REDUCTIONS
from distnet.parallel.dealing import deal
from distnet.parallel.sums.exact8 import Exact8
from distnet.parallel.sums.exchange import BUCKET_BYTES_BETWEEN_HOSTS
from distnet.parallel.sums.narrow import MOST_RANKS, USUAL_BITS
from distnet.parallel.sums.two_level import bucket_bytes
from distnet.planning.links import Link, Sum, reduction
from distnet.training.step.island_changes import BUCKET_BYTES as CHANGES_BUCKET_BYTES

WORD, PARAMETER = 8, 4  # bytes
NOTHING = Sum(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Workload:
    """What a step computes, and how fast.

    parameters: numbers that are trained. micro_batch_seconds, deviation: the time of a
    micro-batch, and its standard deviation as a part of it. step_seconds: what every rank does
    once a step, such as the update. window_seconds: from the first gradients that are final in a
    micro-batch to its end. memory_seconds: to add one number of another rank of the host.
    """

    parameters: int
    batch_size: int
    micro_batch_size: int
    micro_batch_seconds: float
    deviation: float = 0.0
    step_seconds: float = 0.0
    window_seconds: float = 0.0
    memory_seconds: float = 1e-9

    def grown(self, factor: int) -> Workload:
        """With a batch that is so many times as large."""
        return replace(self, batch_size=self.batch_size * factor)


@dataclass(frozen=True)
class Way:
    """How ranks come to one state; `islands` 0: after every step.

    shards: whether each updates its share of the parameters, and tells it to the others.
    """

    reduction: str = "exact"
    islands: int = 0
    sync_every: int = 50
    sync_reduction: str = "exact8"
    bucket_bytes: int = 0
    algorithm: str = "mpich"
    shards: bool = False

    def __str__(self) -> str:
        if not self.islands:
            return self.reduction + (", sharded optimizer" if self.shards else "")
        islands = counted(self.islands, "island")
        return f"local, {islands} every {self.sync_every} steps, {self.sync_reduction}"


@dataclass(frozen=True)
class Cluster:
    """Where the ranks are."""

    num_hosts: int
    ranks_per_host: int
    link: Link

    @property
    def num_ranks(self) -> int:
        return self.num_hosts * self.ranks_per_host


@dataclass(frozen=True)
class Prediction:
    """A step, on average, in seconds and bytes.

    compute_seconds: of a rank, on average; uneven_seconds: what the slowest takes longer because
    micro-batches do not divide evenly; varying_seconds: because times vary; exposed_seconds:
    messages that are waited for; alone_seconds: what every rank does for itself. sent_bytes: by a
    host over its link; burst_bytes: in one synchronisation, at once.
    """

    num_ranks: int
    num_hosts: int
    batch_size: int
    compute_seconds: float
    uneven_seconds: float
    varying_seconds: float
    exposed_seconds: float
    alone_seconds: float
    sent_bytes: float
    burst_bytes: float

    @property
    def seconds(self) -> float:
        waiting = self.uneven_seconds + self.varying_seconds + self.exposed_seconds
        return self.compute_seconds + waiting + self.alone_seconds

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.seconds


def predict(workload: Workload, way: Way, cluster: Cluster) -> Prediction:
    """The step of a workload on a cluster."""
    return (_rare if way.islands else _synchronous)(workload, way, cluster)


@cache
def expected_maximum(count: int) -> float:
    """E(p): of so many independent numbers with mean 0 and standard deviation 1.

    The integral over x of [x > 0] - P(x)^p, where P is their distribution, by the midpoint rule.
    """
    if count < 2:
        return 0.0
    grid = [(number + 0.5) / 100 for number in range(-800, 800)]
    distribution = NormalDist().cdf
    return sum((x > 0) - distribution(x) ** count for x in grid) / 100


def _synchronous(workload: Workload, way: Way, cluster: Cluster) -> Prediction:
    total = ceil_divide(workload.batch_size, workload.micro_batch_size)
    work = workload.batch_size / workload.micro_batch_size  # a short one takes less
    ranks, c = cluster.num_ranks, workload.micro_batch_seconds
    most = ceil_divide(total, ranks)
    num_slowest = total - (most - 1) * ranks  # ranks with one more than the others
    sums = _gradient_sum(workload, way, cluster)
    buckets = max(1, math.ceil(_wire_bytes(workload, way) / _bucket_bytes(workload, way, cluster)))
    left = max(sums.transfer_seconds - workload.window_seconds, sums.transfer_seconds / buckets)
    within = 0.0
    if cluster.ranks_per_host > 1:  # each adds its share of the numbers of all ranks of the host
        within = workload.parameters * workload.memory_seconds
    gathered = _gathered(workload, cluster) if way.shards else NOTHING
    return Prediction(
        ranks,
        cluster.num_hosts,
        workload.batch_size,
        compute_seconds=c * work / ranks,
        uneven_seconds=c * (min(most, work) - work / ranks),
        varying_seconds=c * workload.deviation * math.sqrt(most) * expected_maximum(num_slowest),
        exposed_seconds=max(sums.delay_seconds + left, 0.0) + gathered.seconds,
        alone_seconds=workload.step_seconds + within,
        sent_bytes=sums.sent_bytes + gathered.sent_bytes,
        burst_bytes=sums.sent_bytes + gathered.sent_bytes,
    )


def work_of_islands(workload: Workload, way: Way) -> list[float]:
    """Micro-batches of each island in a step, a short one as a part of one; see `Sampler.part`."""
    cuts = [workload.batch_size * k // way.islands for k in range(way.islands + 1)]
    return [(stop - start) / workload.micro_batch_size for start, stop in pairwise(cuts)]


def _rare(workload: Workload, way: Way, cluster: Cluster) -> Prediction:
    """Islands that are dealt to ranks, or share them; see `training.islands`."""
    ranks, c = cluster.num_ranks, workload.micro_batch_seconds
    work = work_of_islands(workload, way)
    largest = ceil_divide(workload.batch_size, way.islands)
    inner = replace(workload, batch_size=largest, deviation=0.0)
    own = ceil_divide(way.islands, ranks)  # islands of the rank that has most
    shared = max(1, ranks // way.islands)  # ranks of an island
    hosts = max(1, math.ceil(shared / cluster.ranks_per_host))
    step = _synchronous(
        inner,
        replace(way, islands=0),
        replace(cluster, num_hosts=hosts, ranks_per_host=max(1, shared // hosts)),
    )
    if ranks <= way.islands:
        dealt = (deal(way.islands, rank, ranks) for rank in range(ranks))
        busy = c * max(sum(work[island] for island in islands) for islands in dealt)
    else:
        busy = step.compute_seconds + step.uneven_seconds
    mean = c * sum(work) / ranks
    varying = c * workload.deviation * math.sqrt(busy / c / way.sync_every)
    sums = _sum_of_changes(workload, way, cluster)
    return Prediction(
        ranks,
        cluster.num_hosts,
        workload.batch_size,
        compute_seconds=mean,
        uneven_seconds=max(busy - mean, 0.0),
        varying_seconds=varying * expected_maximum(min(ranks, way.islands)),
        exposed_seconds=own * step.exposed_seconds + sums.seconds / way.sync_every,
        alone_seconds=own * step.alone_seconds,
        sent_bytes=own * step.sent_bytes + sums.sent_bytes / way.sync_every,
        burst_bytes=max(sums.sent_bytes, step.sent_bytes),
    )


def _wire_bytes(workload: Workload, way: Way) -> int:
    return int(workload.parameters * REDUCTIONS[way.reduction].wire_itemsize)


def _bucket_bytes(workload: Workload, way: Way, cluster: Cluster) -> int:
    if cluster.ranks_per_host == 1:
        return way.bucket_bytes or BUCKET_BYTES_BETWEEN_HOSTS
    return way.bucket_bytes or bucket_bytes(_wire_bytes(workload, way), cluster.ranks_per_host)


def _is_narrow(way: Way, cluster: Cluster) -> bool:
    """Whether numbers travel in fewer bits than they have; see `parallel.sums.narrow`."""
    has_eight = REDUCTIONS[way.reduction].wire_itemsize == WORD
    return has_eight and cluster.ranks_per_host > 1 and cluster.num_hosts <= MOST_RANKS


def _gradient_sum(workload: Workload, way: Way, cluster: Cluster) -> Sum:
    """Messages of a step between hosts, of which each rank sends its share of a bucket."""
    lanes = cluster.ranks_per_host  # which share the link
    is_narrow = _is_narrow(way, cluster)
    share = (USUAL_BITS / (8 * WORD) if is_narrow else 1.0) / lanes
    algorithm = "direct" if is_narrow else way.algorithm
    wire, bucket = _wire_bytes(workload, way), _bucket_bytes(workload, way, cluster)
    sums = reduction(cluster.link, algorithm, cluster.num_hosts, wire * share, bucket * share)
    return Sum(sums.delay_seconds, sums.transfer_seconds * lanes, sums.sent_bytes * lanes)


def _gathered(workload: Workload, cluster: Cluster) -> Sum:
    """Each host tells the others its share of the parameters: half of an all-reduce."""
    num_bytes = PARAMETER * workload.parameters
    whole = reduction(cluster.link, "halving", cluster.num_hosts, num_bytes, num_bytes)
    return Sum(whole.delay_seconds / 2, whole.transfer_seconds / 2, whole.sent_bytes / 2)


def _sum_of_changes(workload: Workload, way: Way, cluster: Cluster) -> Sum:
    """Seconds of a synchronisation: how large changes are, if that is needed, and the changes."""
    format = CHANGES[way.sync_reduction]
    changes = reduction(
        cluster.link,
        way.algorithm,
        cluster.num_hosts,
        int(workload.parameters * format.wire_itemsize),
        CHANGES_BUCKET_BYTES,
    )
    groups = 0
    if issubclass(format, Exact8):
        groups = ceil_divide(workload.parameters, format.group)
    told = reduction(
        cluster.link, way.algorithm, cluster.num_hosts, WORD * (2 + groups), CHANGES_BUCKET_BYTES
    )
    return Sum(
        told.delay_seconds + changes.delay_seconds,
        told.transfer_seconds + changes.transfer_seconds,
        told.sent_bytes + changes.sent_bytes,
    )
