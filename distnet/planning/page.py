"""The plan as a page: curves over the number of ranks, for several ways to come to one state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import distnet.reporting
from distnet.base.words import counted
from distnet.planning.advice import advice
from distnet.planning.forecast import Row, others, rows_of
from distnet.planning.options import PlanOptions
from distnet.planning.simulation import Played
from distnet.planning.sources import Plan
from distnet.reporting.charts import Curve, bars, chart
from distnet.reporting.html import Html, document, element, table

STYLE = Path(distnet.reporting.__file__).with_name("page.css")


def page(
    options: PlanOptions, plan: Plan, rows: Sequence[Row], played: Mapping[str, Played]
) -> str:
    """The HTML of a plan."""
    ways = {str(way): rows_of(options, plan, way) for way in others(plan)}
    charts = [
        curves("Images a second, in thousands", ways, lambda r: r.step.images_per_second / 1e3),
        curves("Efficiency", ways, lambda r: r.efficiency, percent=True),
        curves("Milliseconds a step", ways, lambda r: r.step.seconds * 1e3),
        curves("MB a host sends in a step", ways, lambda r: r.step.sent_bytes / 1e6),
    ]
    sections = [
        element("h1", "distnet plan"),
        element("h2", "More ranks"),
        element("div", *charts, class_="grid"),
        where_time_goes(rows),
        element("h2", "Advice"),
        element("ul", *(element("li", text) for text in advice(options, plan, rows))),
        *of_played(played),
        element("h2", "Not known"),
        element("ul", *(element("li", text) for text in plan.unknown)),
    ]
    return document("distnet plan", STYLE.read_text(), sections)


def curves(
    title: str,
    ways: Mapping[str, Sequence[Row]],
    value: Callable[[Row], float],
    percent: bool = False,
) -> Html:
    """A curve for each way, over the number of ranks in powers of two."""
    drawn = [
        Curve(
            name,
            [math.log2(row.step.num_ranks) for row in rows],
            [value(row) for row in rows],
            color,
            dots=True,
        )
        for color, (name, rows) in enumerate(ways.items())
    ]
    return chart(title, "ranks, as powers of 2", drawn, percent=percent)


def where_time_goes(rows: Sequence[Row]) -> Html:
    """What a step is made of, by the number of ranks."""
    return bars(
        "Where the time of a step goes",
        [
            (
                counted(row.step.num_ranks, "rank"),
                [
                    ("compute", row.step.compute_seconds),
                    ("uneven", row.step.uneven_seconds),
                    ("varying", row.step.varying_seconds),
                    ("messages", row.step.exposed_seconds),
                    ("alone", row.step.alone_seconds),
                ],
            )
            for row in rows
        ],
    )


def of_played(played: Mapping[str, Played]) -> list[Html]:
    """The runs that were played, if any were."""
    if not played:
        return []
    heads = ["", "hours", "failures", "lost", "waiting to go on", "hosts at the end"]
    rows = [
        [
            policy,
            f"{run.seconds / 3600:.4g}",
            run.num_failures,
            f"{run.lost_seconds / run.seconds:.1%}",
            f"{run.down_seconds / run.seconds:.1%}",
            run.num_hosts,
        ]
        for policy, run in played.items()
    ]
    return [element("h2", "Played"), table(heads, rows)]
