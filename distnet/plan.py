"""`distnet plan [RUN ...]`: how training will go on more ranks, hosts and slower links.

Exit codes: 0 done, 2 wrong usage or input, 74 computed, but not told: standard output failed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distnet.base.command import one_line
from distnet.base.files import expect_none, write_atomically
from distnet.base.options import ConfigError, parse_options
from distnet.base.output import write_now
from distnet.base.tables import aligned
from distnet.base.words import counted
from distnet.planning.advice import advice
from distnet.planning.forecast import Row, cluster_of, rows_of, workload_of
from distnet.planning.model import Cluster, predict
from distnet.planning.options import PlanOptions
from distnet.planning.page import page
from distnet.planning.simulation import POLICIES, Played, Stragglers, play
from distnet.planning.sources import Measured, Plan, expect_trainable, plan_of, way_of
from distnet.training.files.metrics import plain
from distnet.training.job import DONE, NOT_WRITTEN

HEAD = (
    *("ranks", "hosts", "step ms", "compute", "uneven", "varying", "messages", "alone"),
    *("efficiency", "images/s", "MB/step", "burst MB", "MB/rank"),
)
PLAYED = ("policy", "hours", "ms/step", "failures", "lost", "waiting to go on", "hosts at the end")


@one_line(ConfigError, OSError)
def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    options = parse_options(PlanOptions, argv, "distnet plan")
    if options.html:
        expect_none(Path(options.html), overwrite=options.overwrite)
    plan = plan_of(options)
    rows = rows_of(options, plan)
    played = simulate(options, plan)
    if options.html:
        write_atomically(Path(options.html), page(options, plan, rows, played).encode())
    if options.json:
        text = json.dumps(as_json(options, plan, rows, played), indent=2)
    else:
        text = "\n".join(lines(options, plan, rows, played))
    return NOT_WRITTEN if write_now(sys.stdout, f"{text}\n") else DONE


def simulate(options: PlanOptions, plan: Plan) -> dict[str, Played]:
    """What is played, by policy, on the largest number of ranks."""
    if not options.simulate:
        return {}
    most = max(options.ranks)
    step, local = (way_of(with_sync(options, sync)) for sync in ("step", "local"))
    local = replace(local, shards=False)
    expect_trainable(plan.workload, local)
    return {
        policy: play(
            policy,
            workload_of(most, options, plan),
            local if policy == "islands" else step,
            cluster_of(most, options, plan),
            plan.failures,
            Stragglers(options.straggler_share, options.straggler_factor),
            options.simulate,
            options.seed,
        )
        for policy in POLICIES
    }


def with_sync(options: PlanOptions, sync: str) -> PlanOptions:
    """The same options but for when ranks come to one state."""
    return PlanOptions(**(vars(options) | {"sync": sync}))


def lines(
    options: PlanOptions, plan: Plan, rows: Sequence[Row], played: dict[str, Played]
) -> Iterator[str]:
    """All that is said."""
    yield from about(plan)
    cells = list(map(cells_of, rows))
    head = [*HEAD, "hours", "cost"][: len(cells[0])]
    yield from aligned([head, *cells], left=0)
    yield from (line for run in plan.measured for line in compared(run, plan))
    yield from (f"advice: {text}" for text in advice(options, plan, rows))
    yield from played_lines(options, played)
    yield from (f"not known: {text}" for text in plan.unknown)


def about(plan: Plan) -> Iterator[str]:
    """What it is computed from."""
    load, link = plan.workload, plan.link
    yield (
        f"{load.parameters:,} parameters, batch {load.batch_size} in micro-batches of "
        f"{load.micro_batch_size}, {load.micro_batch_seconds * 1e3:.3g} ms each, deviation "
        f"{load.deviation:.1%}, {load.step_seconds * 1e3:.3g} ms a step on every rank"
    )
    yield (
        f"between hosts {link.delay(8) * 1e3:.3g} ms for a few bytes, "
        f"{link.bytes_per_second * 8e-6:.4g} Mbit/s for many; {plan.way}"
    )


def cells_of(row: Row) -> list[str]:
    """A line of the table, whose columns are HEAD, and hours and cost where they are asked for."""
    step = row.step
    parts = (
        step.seconds,
        step.compute_seconds,
        step.uneven_seconds,
        step.varying_seconds,
        step.exposed_seconds,
        step.alone_seconds,
    )
    sizes = (step.sent_bytes, step.burst_bytes, row.memory_bytes)
    costs = ((row.hours, ".3g"), (row.cost, ".4g"))
    return [
        str(step.num_ranks),
        str(step.num_hosts),
        *(f"{part * 1e3:.4g}" for part in parts),
        f"{row.efficiency:.1%}",
        f"{step.images_per_second:.0f}",
        *(f"{size / 1e6:.3g}" for size in sizes),
        *(f"{value:{spec}}" for value, spec in costs if value is not None),
    ]


def compared(run: Measured, plan: Plan) -> Iterator[str]:
    """A run beside what is predicted for its ranks, if they were on one host: a check."""
    if not run.step_seconds or (run.config["sync"] == "local") != bool(plan.way.islands):
        return
    step = predict(plan.workload, plan.way, Cluster(1, run.num_ranks, plan.link))
    error = step.seconds / run.step_seconds - 1
    yield (
        f"{run.name}: {counted(run.num_ranks, 'rank')} took {run.step_seconds * 1e3:.4g} ms a "
        f"step, predicted for one host {step.seconds * 1e3:.4g} ({error:+.1%})"
    )


def played_lines(options: PlanOptions, played: dict[str, Played]) -> Iterator[str]:
    """What became of the runs that were played."""
    if not played:
        return
    yield f"played: {options.simulate} steps on {max(options.ranks)} ranks, seed {options.seed}"
    cells = [[*PLAYED, ""]]
    for policy, run in played.items():
        seconds, steps = run.seconds or math.inf, max(run.num_done, 1)
        cells.append(
            [
                policy,
                f"{run.seconds / 3600:.4g}",
                f"{run.seconds / steps * 1e3:.4g}",
                str(run.num_failures),
                f"{run.lost_seconds / seconds:.1%}",
                f"{run.down_seconds / seconds:.1%}",
                str(run.num_hosts),
                f"given up after {run.num_done} steps" if run.given_up else "",
            ]
        )
    yield from aligned(cells)


def as_json(
    options: PlanOptions, plan: Plan, rows: Sequence[Row], played: dict[str, Played]
) -> dict[str, Any]:
    """The plan as JSON, for programs."""
    steps = [
        asdict(row) | {"seconds": row.step.seconds, "images_per_second": row.step.images_per_second}
        for row in rows
    ]
    return plain(
        {
            "workload": asdict(plan.workload),
            "way": asdict(plan.way),
            "link": asdict(plan.link),
            "rows": steps,
            "advice": list(advice(options, plan, rows)),
            "played": {policy: asdict(run) for policy, run in played.items()},
            "unknown": plan.unknown,
        }
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
