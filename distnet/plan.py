"""`distnet plan [RUN ...]`: how training will go on more ranks, hosts and slower links.

Exit codes: 0 done, 2 wrong usage or input, 74 computed, but not told: standard output failed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distnet.base.command import one_line
from distnet.base.files import expect_none, write_atomically
from distnet.base.options import ConfigError, parse_options
from distnet.base.output import write_now
from distnet.base.words import counted
from distnet.planning.advice import advice
from distnet.planning.forecast import Row, cluster_of, rows_of, workload_of
from distnet.planning.model import Cluster, predict
from distnet.planning.options import PlanOptions
from distnet.planning.page import page
from distnet.planning.simulation import POLICIES, Played, Stragglers, play
from distnet.planning.sources import Measured, Plan, plan_of, way_of
from distnet.training.files.metrics import plain
from distnet.training.job import DONE, NOT_WRITTEN

HEAD = (
    "ranks hosts  step ms compute  uneven varying messages   alone efficiency  images/s"
    "  MB/step burst MB  MB/rank"
)


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
    priced = [row.hours is not None for row in rows]
    yield HEAD + ("    hours      cost" if any(priced) else "")
    yield from map(line_of, rows)
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


def line_of(row: Row) -> str:
    """A line of the table."""
    step = row.step
    parts = (
        step.compute_seconds,
        step.uneven_seconds,
        step.varying_seconds,
        step.exposed_seconds,
        step.alone_seconds,
    )
    compute, uneven, varying, exposed, alone = (f"{part * 1e3:.4g}" for part in parts)
    sent, burst, held = (x / 1e6 for x in (step.sent_bytes, step.burst_bytes, row.memory_bytes))
    text = (
        f"{step.num_ranks:>5}{step.num_hosts:>6}{step.seconds * 1e3:>9.4g}{compute:>8}{uneven:>8}"
        f"{varying:>8}{exposed:>9}{alone:>8}{row.efficiency:>11.1%}{step.images_per_second:>10.0f}"
        f"{sent:>9.3g}{burst:>9.3g}{held:>9.3g}"
    )
    if row.hours is not None:
        text += f"{row.hours:>9.3g}"
    if row.cost is not None:
        text += f"{row.cost:>10.4g}"
    return text


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
    yield (
        f"played: {options.simulate} steps on {max(options.ranks)} ranks, seed {options.seed}"
        "\npolicy        hours  ms/step  failures  lost  waiting to go on  hosts at the end"
    )
    for policy, run in played.items():
        steps = max(run.num_done, 1)
        given_up = f", given up after {run.num_done} steps" if run.given_up else ""
        yield (
            f"{policy:<9}{run.seconds / 3600:>10.4g}{run.seconds / steps * 1e3:>9.4g}"
            f"{run.num_failures:>10}{run.lost_seconds / (run.seconds or math.inf):>6.1%}"
            f"{run.down_seconds / (run.seconds or math.inf):>18.1%}{run.num_hosts:>18}{given_up}"
        )


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
