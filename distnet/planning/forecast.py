"""The rows of a plan: a prediction for each number of ranks, with efficiency, memory and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distnet.base.arrays import ceil_divide
from distnet.base.options import ConfigError
from distnet.planning.memory import bytes_of_rank
from distnet.planning.model import Cluster, Prediction, Way, Workload, predict
from distnet.planning.options import PlanOptions
from distnet.planning.sources import HOUR, Plan, is_trainable

FEW, MANY = 4, 32  # islands


@dataclass(frozen=True)
class Row:
    """A number of ranks: its step; efficiency: images a second, of those of so many ranks alone.

    memory_bytes: of a rank. hours, cost: of the run, with failures; None if its length or price is
    not known. failure_factor: how many times as long it takes for them.
    """

    step: Prediction
    efficiency: float
    memory_bytes: int
    failure_factor: float
    hours: float | None
    cost: float | None


def cluster_of(num_ranks: int, options: PlanOptions, plan: Plan) -> Cluster:
    """Hosts that are full; raises ConfigError where they cannot be."""
    per_host = min(num_ranks, options.ranks_per_host)
    if num_ranks % per_host:
        raise ConfigError(
            f"--ranks: found {num_ranks}, expected a multiple of --ranks-per-host, {per_host}"
        )
    return Cluster(num_ranks // per_host, per_host, plan.link)


def step_of(num_ranks: int, options: PlanOptions, plan: Plan, way: Way) -> Prediction:
    """The step of so many ranks."""
    return predict(workload_of(num_ranks, options, plan), way, cluster_of(num_ranks, options, plan))


def workload_of(num_ranks: int, options: PlanOptions, plan: Plan) -> Workload:
    """With a batch that grows, or does not."""
    return plan.workload.grown(num_ranks) if options.grow_batch else plan.workload


def row_of(num_ranks: int, options: PlanOptions, plan: Plan, way: Way | None = None) -> Row:
    """What there is to tell of so many ranks."""
    way = way or plan.way
    step = step_of(num_ranks, options, plan, way)
    alone = step_of(1, options, plan, replace(way, islands=0))
    held = bytes_of_rank(plan.workload.parameters, plan.vectors, way, num_ranks)
    factor = plan.failures.factor(step.num_hosts)
    hours = options.steps * step.seconds * factor / HOUR if options.steps else None
    return Row(
        step,
        step.images_per_second / (num_ranks * alone.images_per_second),
        sum(held.values()),
        factor,
        hours,
        hours * options.price * step.num_hosts if hours is not None and options.price else None,
    )


def rows_of(options: PlanOptions, plan: Plan, way: Way | None = None) -> list[Row]:
    """A row for every number of ranks that is asked for."""
    return [row_of(num_ranks, options, plan, way) for num_ranks in sorted(set(options.ranks))]


def others(plan: Plan) -> list[Way]:
    """Ways to come to one state that are worth a look, that of the plan first.

    All of them can be trained in: fewer samples than islands, for one, can not.
    """
    way = plan.way
    ways = [way, *(replace(way, reduction=kind, islands=0) for kind in ("exact", "exact32"))]
    for islands, every in ((way.islands or FEW, 10), (way.islands or FEW, 50), (MANY, 50)):
        rarely = replace(way, islands=islands, sync_every=every, sync_reduction="exact8")
        ways.append(replace(rarely, shards=False))
    return [each for each in dict.fromkeys(ways) if is_trainable(plan.workload, each)]


def most_ranks(rows: Sequence[Row], least_efficiency: float) -> int:
    """The largest number of ranks up to which all use that part of the hardware; 0: none."""
    most = 0
    for row in rows:
        if row.efficiency < least_efficiency:
            break
        most = row.step.num_ranks
    return most


def num_micro_batches(num_ranks: int, options: PlanOptions, plan: Plan) -> int:
    """The micro-batches of a step: ranks beyond their number have nothing to do."""
    workload = workload_of(num_ranks, options, plan)
    return ceil_divide(workload.batch_size, workload.micro_batch_size)
