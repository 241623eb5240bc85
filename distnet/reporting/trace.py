"""An excerpt of a timeline: what each rank did in one step in the middle of the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distnet.reporting.html import Html, element

WIDTH, ROW, LABEL = 920, 26, 64
SHOWN_RANKS = 16
# The kinds of spans by how their names begin, in the order of the page's colours.
KINDS = (
    ("forward", ("forward", "loss", "feed", "sampler")),
    ("backward", ("backward",)),
    ("sums", ("to ", "from ")),
    ("waiting", ("wait",)),
    ("update", ("optimizer", "refresh")),
)


@dataclass(frozen=True)
class Span:
    """What a rank did from `begin` on, for `length` microseconds."""

    rank: int
    name: str
    begin: float
    length: float


def excerpt(path: Path) -> Html:
    """A row for each rank, with what it did in one step; "" if there is no whole step in it."""
    spans = [_span(event) for event in _events(path) if event.get("ph") == "X"]
    steps = [span for span in spans if span.name.startswith("step ") and span.rank == 0]
    if not steps:
        return Html("")
    name = steps[len(steps) // 2].name
    step = [span for span in spans if span.name == name]
    begin = min(span.begin for span in step)
    length = max(span.begin + span.length for span in step) - begin
    within = [
        span
        for span in spans
        if not span.name.startswith("step ") and begin <= span.begin <= begin + length
    ]
    return _drawn(name, sorted({span.rank for span in step})[:SHOWN_RANKS], within, begin, length)


def _drawn(
    name: str, ranks: Sequence[int], spans: Sequence[Span], begin: float, length: float
) -> Html:
    pieces = []
    scale = (WIDTH - LABEL) / (length or 1.0)
    for row, rank in enumerate(ranks):
        top = row * ROW + 4
        pieces.append(element("text", f"rank {rank}", x=0, y=top + 14))
        for span in (span for span in spans if span.rank == rank):
            color = kind_of(span.name)
            box = element(
                "rect",
                element("title", f"{span.name}: {span.length / 1000:.3g} ms"),
                x=f"{LABEL + (span.begin - begin) * scale:.1f}",
                y=top,
                width=f"{max(span.length * scale, 0.5):.1f}",
                height=ROW - 8,
                fill=f"var(--c{color})",
            )
            pieces.append(box)
    height = len(ranks) * ROW + 4
    told = f"{name}, {length / 1000:.3g} ms"
    drawing = element("svg", *pieces, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=told)
    names = [kind for kind, _ in KINDS]
    keys = (
        element("span", kind, class_="key", style=f"--color: var(--c{at})")
        for at, kind in enumerate(names)
    )
    legend = element("p", *keys, class_="legend")
    inside = element("div", drawing, style="min-width: 30rem")
    return element(
        "figure", element("figcaption", told), element("div", inside, class_="scrolls"), legend
    )


def kind_of(name: str) -> int:
    """The number of a span's kind, and of its colour."""
    found = (at for at, (_, begins) in enumerate(KINDS) if name.startswith(begins))
    return next(found, len(KINDS))


def _events(path: Path) -> list[dict[str, Any]]:
    try:
        events = json.loads(path.read_bytes())["traceEvents"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [event for event in events if isinstance(event, dict)]


def _span(event: dict[str, Any]) -> Span:
    return Span(
        int(event["pid"]), str(event["name"]), float(event["ts"]), float(event.get("dur", 0.0))
    )
