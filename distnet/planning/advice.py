"""What a plan recommends, in sentences, each with the figures that it follows from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from distnet.base.words import counted
from distnet.planning.forecast import (
    Row,
    most_ranks,
    num_micro_batches,
    others,
    row_of,
    rows_of,
)
from distnet.planning.options import PlanOptions
from distnet.planning.sources import Plan

GOOD = 0.7  # of the hardware that ranks should use
GAIN = 0.05  # of a step, below which nothing is worth a change
BUCKETS = [1 << k for k in range(14, 23)]


def advice(options: PlanOptions, plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    """A line for each thing that helps, or that there is to know."""
    yield from _how_many(options, plan, rows)
    yield from _idle(options, plan, rows)
    at = next((row for row in rows if row.efficiency < GOOD), rows[-1])
    yield from _way(options, plan, at)
    yield from _buckets(options, plan, at)
    yield from _cheapest(rows)
    yield from _failures(options, plan, rows)


def _how_many(options: PlanOptions, plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    told = []
    for way in others(plan):
        most = most_ranks(rows_of(options, plan, way), GOOD)
        told.append(f"{way}: {most or 'none'}")
    yield f"the most ranks with an efficiency of at least {GOOD:.0%}: {'; '.join(told)}"


def _idle(options: PlanOptions, plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        num_ranks = row.step.num_ranks
        there_are = num_micro_batches(num_ranks, options, plan)
        if num_ranks > there_are:
            yield (
                f"from {num_ranks} ranks on some have nothing to do: a step has "
                f"{counted(there_are, 'micro-batch', 'micro-batches')}; a smaller "
                "--micro-batch-size or a larger batch (--grow-batch) helps"
            )
            return


def _way(options: PlanOptions, plan: Plan, at: Row) -> Iterator[str]:
    """What another way to come to one state would change, where it begins to matter."""
    num_ranks, before, best = at.step.num_ranks, at.step.seconds, at.step.seconds
    for way in others(plan)[1:]:
        row = row_of(num_ranks, options, plan, way)
        if row.step.seconds < (1 - GAIN) * best:
            best = row.step.seconds
            yield (
                f"on {counted(num_ranks, 'rank')} {way} takes {best * 1e3:.3g} ms a step in place "
                f"of {before * 1e3:.3g}, and sends {_bytes(row.step.sent_bytes)} in place of "
                f"{_bytes(at.step.sent_bytes)}"
            )


def _buckets(options: PlanOptions, plan: Plan, at: Row) -> Iterator[str]:
    if plan.way.islands or at.step.num_hosts == 1:
        return
    tried = {
        size: row_of(at.step.num_ranks, options, plan, replace(plan.way, bucket_bytes=size))
        for size in BUCKETS
    }
    best = min(tried, key=lambda size: tried[size].step.seconds)
    if tried[best].step.seconds < (1 - GAIN) * at.step.seconds:
        yield (
            f"--bucket-bytes {best}: {tried[best].step.seconds * 1e3:.3g} ms a step on "
            f"{at.step.num_ranks} ranks in place of {at.step.seconds * 1e3:.3g}"
        )


def _cheapest(rows: Sequence[Row]) -> Iterator[str]:
    priced = [row for row in rows if row.cost is not None and row.hours is not None]
    if priced:
        cheapest = min(priced, key=lambda row: row.cost or 0.0)
        fastest = min(priced, key=lambda row: row.hours or 0.0)
        for name, row in (("cheapest", cheapest), ("fastest", fastest)):
            ranks = counted(row.step.num_ranks, "rank")
            yield f"{name}: {ranks}, {row.hours:.3g} hours, cost {row.cost:.4g}"


def _failures(options: PlanOptions, plan: Plan, rows: Sequence[Row]) -> Iterator[str]:
    if not plan.failures.mtbf_seconds:
        return
    last = rows[-1]
    hosts = last.step.num_hosts
    yield (
        f"{counted(hosts, 'host')}: one fails every {1 / plan.failures.rate(hosts) / 60:.3g} "
        "minutes; a checkpoint "
        f"every {plan.failures.interval(hosts):.3g} s makes the run {last.failure_factor:.3g} "
        "times as long, if it is started again each time"
    )
    if hosts > 1:
        left = last.step.num_ranks // hosts * (hosts - 1)
        fewer = row_of(left, options, plan).step.seconds
        yield (
            f"on {counted(left, 'rank')}, when one host is lost and the others go on, a step takes "
            f"{fewer * 1e3:.3g} ms in place of {last.step.seconds * 1e3:.3g}"
        )


def _bytes(count: float) -> str:
    return f"{count / 1e6:.3g} MB"
