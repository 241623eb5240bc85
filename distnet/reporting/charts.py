"""Curves and bars as SVG inside of a page: they scale, print, and follow its colours.

A name under the pointer is the `<title>` of what lies there; no script is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from distnet.reporting.html import Html, element

WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 14, 40
MAX_POINTS = 300
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2")


@dataclass(frozen=True)
class Curve:
    """A line of a chart, or dots; `color` is the number of the page's colours and of the dash."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    faint: bool = False
    dots: bool = False
    line: bool = True


def chart(
    title: str,
    x_name: str,
    curves: Sequence[Curve],
    percent: bool = False,
    x_marks: Mapping[float, str] | None = None,
) -> Html:
    """Curves over one pair of axes, with the names of lines below; "" without a finite number.

    x_marks: what the horizontal axis says, by place; it reaches from the first to the last. By
    default they are round numbers, and it ends where the curves do.
    """
    curves = [thinned(curve) for curve in curves]
    curves = [curve for curve in curves if curve.xs]
    if not curves:
        return Html("")
    axes = Axes.of(curves, percent, x_marks)
    pieces = [*axes.drawn(x_name), *(_drawn(curve, axes) for curve in curves)]
    drawing = element("svg", *pieces, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    told = [curve for curve in curves if curve.line and not curve.faint]
    legend = element("p", *map(_key, told), class_="legend")
    return element("figure", element("figcaption", title), drawing, legend)


@dataclass(frozen=True)
class Axes:
    """Both axes of a chart: the numbers at which they begin and end, and what is written beside.

    x_ticks, y_ticks: texts, by place.
    """

    x_span: tuple[float, float]
    y_span: tuple[float, float]
    x_ticks: Mapping[float, str]
    y_ticks: Mapping[float, str]
    percent: bool

    @classmethod
    def of(
        cls, curves: Sequence[Curve], percent: bool, x_marks: Mapping[float, str] | None
    ) -> Axes:
        """The axes on which all curves have room."""
        xs = [x for curve in curves for x in curve.xs]
        ys = [y for curve in curves for y in curve.ys]
        y_ticks = [y for y in ticks(min(ys), max(ys)) if not percent or y <= 1]
        if x_marks:
            x_span, x_ticks = (min(x_marks), max(x_marks)), x_marks
        else:
            places = ticks(min(*xs, 0), max(xs))
            x_span = places[0], max(xs) or 1.0
            x_ticks = {x: f"{x:,.6g}" for x in places if x <= x_span[1]}
        named = {y: f"{100 * y:.4g}%" if percent else f"{y:.4g}" for y in y_ticks}
        return cls(x_span, (y_ticks[0], y_ticks[-1]), x_ticks, named, percent)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies in the drawing."""
        across = (x - self.x_span[0]) / (self.x_span[1] - self.x_span[0] or 1)
        up = (y - self.y_span[0]) / (self.y_span[1] - self.y_span[0] or 1)
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        return LEFT + across * (right - LEFT), bottom - up * (bottom - TOP)

    def drawn(self, x_name: str) -> Iterator[Html]:
        """The lines, and what is written beside."""
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for y, label in self.y_ticks.items():
            _, at = self.place(self.x_span[0], y)
            yield _line(LEFT, at, right, at, "grid")
            yield element("text", label, x=LEFT - 6, y=_n(at + 4), text_anchor="end")
        for x, label in self.x_ticks.items():
            at, _ = self.place(x, self.y_span[0])
            yield _line(at, bottom, at, bottom + 4, "axis")
            yield element("text", label, x=_n(at), y=bottom + 18, text_anchor="middle")
        yield _line(LEFT, bottom, right, bottom, "axis")
        middle = (LEFT + right) / 2
        yield element("text", x_name, x=middle, y=HEIGHT - 6, text_anchor="middle")


def _drawn(curve: Curve, axes: Axes) -> Html:
    points = [axes.place(x, y) for x, y in zip(curve.xs, curve.ys, strict=True)]
    style = f"--color: var(--c{curve.color % len(DASHES)})"
    dash = DASHES[curve.color % len(DASHES)] or None
    last = f"{curve.ys[-1]:.2%}" if axes.percent else f"{curve.ys[-1]:.4g}"
    line = element("title", f"{curve.name}, at the end {last}")
    if curve.line:
        places = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        line = element("polyline", line, points=places, stroke_dasharray=dash)
    dots = points if curve.dots else []
    marks = [element("circle", cx=_n(x), cy=_n(y), r=3) for x, y in dots]
    kind = "curve faint" if curve.faint else "curve"
    return element("g", line, *marks, class_=kind, style=style)


def thinned(curve: Curve) -> Curve:
    """At most MAX_POINTS points, means of neighbours; numbers that are not finite are left out."""
    pairs = zip(curve.xs, curve.ys, strict=True)
    points = [(float(x), float(y)) for x, y in pairs if math.isfinite(y)]
    size = math.ceil(len(points) / MAX_POINTS)
    groups = [points[i : i + size] for i in range(0, len(points), size or 1)]
    means = [tuple(sum(axis) / len(group) for axis in zip(*group, strict=True)) for group in groups]
    xs, ys = [x for x, _ in means], [y for _, y in means]
    return replace(curve, xs=xs, ys=ys)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers around [low, high]: 1, 2 or 5 times a power of ten apart, at most `most`."""
    if low == high:
        low, high = low - 0.1 * abs(low or 1), high + 0.1 * abs(high or 1)
    span = high - low
    step = 10 ** math.floor(math.log10(span / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (step * factor) <= most - 2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def bars(title: str, rows: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> Html:
    """A bar for each row, of pieces with a name and a length; all to one scale."""
    longest = max(sum(length for _, length in pieces) for _, pieces in rows) or 1.0
    names = list(dict.fromkeys(name for _, pieces in rows for name, _ in pieces))
    shown = []
    for row, pieces in rows:
        parts = [
            element(
                "span",
                style=f"width: {100 * length / longest:.2f}%; --color: var(--c{names.index(name)})",
                title=f"{name}: {length:.3g} s",
            )
            for name, length in pieces
        ]
        told = ", ".join(f"{name} {length:.3g} s" for name, length in pieces)
        bar = element("div", *parts, class_="bar", role="img", aria_label=f"{row}: {told}")
        shown += [element("div", row), bar, element("div", told, class_="told")]
    keys = element("p", *(_key(Curve(name, [], [], at)) for at, name in enumerate(names)))
    caption = element("figcaption", title)
    return element("figure", caption, element("div", *shown, class_="bars"), keys)


def _key(curve: Curve) -> Html:
    style = f"--color: var(--c{curve.color % len(DASHES)})"
    return element("span", curve.name, class_="key", style=style)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=_n(x1), y1=_n(y1), x2=_n(x2), y2=_n(y2), class_=kind)


def _n(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
