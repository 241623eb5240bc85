"""The page of a sweep: how the result depends on each option, the best curves, all trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from distnet.base.words import counted
from distnet.reporting.charts import Curve, chart, ticks
from distnet.reporting.html import Html, document, element, table
from distnet.reporting.page import STYLE
from distnet.sweeping.outcomes import FAILED, FINISHED, UNFINISHED, Outcome, options_of
from distnet.sweeping.spec import text_of
from distnet.training.files.metrics import read_events

NUM_CURVES = 6  # as many as there are colours


def page(title: str, outcomes: Sequence[Outcome]) -> str:
    """The HTML of a sweep; outcomes: the best one first."""
    finished = [each for each in outcomes if each.state == FINISHED]
    charts = [*_by_option(finished), _curves(finished[:NUM_CURVES])]
    shown = [each for each in charts if each]
    sections = [
        element("h1", f"distnet sweep: {title}"),
        element("p", tally(outcomes)),
        element("p", choice(outcomes), class_="quiet"),
        element("div", *shown, class_="grid") if shown else "",
        element("section", element("h2", "Trials"), _table(outcomes)),
    ]
    return document(f"distnet sweep: {title}", STYLE.read_text(), sections)


def tally(outcomes: Sequence[Outcome]) -> str:
    """How many trials there are, and how they stand."""
    states = [each.state for each in outcomes]
    parts = [f"{states.count(s)} {s}" for s in (FINISHED, FAILED, UNFINISHED) if s in states]
    return f"{counted(len(outcomes), 'trial')}: {', '.join(parts)}"


def choice(outcomes: Sequence[Outcome]) -> str:
    """By which figure the trials are compared."""
    if outcomes[0].measured_by == "valid_accuracy":
        return "compared by the accuracy on the validation data"
    return (
        "compared by the accuracy on the test data, which flatters the best; with validation = 0.1 "
        "in the file they are compared by other data"
    )


def _by_option(finished: Sequence[Outcome]) -> Iterator[Html]:
    """For each option a chart with a dot for each trial."""
    for name in options_of(finished):
        taking = [each for each in finished if name in each.trial.chosen]
        places, marks, scale = _places([each.trial.chosen[name] for each in taking])
        dots = [
            Curve(each.trial.name, [place], [each.accuracy], dots=True, line=False)
            for each, place in zip(taking, places, strict=True)
        ]
        yield chart(f"accuracy by {name}", f"{name}{scale}", dots, percent=True, x_marks=marks)


def _places(values: Sequence[object]) -> tuple[list[float], dict[float, str], str]:
    """Where each value stands, what the axis says where, and of which scale it is.

    Numbers that are far apart stand by their logarithm; what is no number, one after the other.
    """
    numbers = [float(v) for v in values if type(v) in (int, float)]  # type: ignore[arg-type]
    if len(numbers) < len(values):
        names = sorted(set(map(text_of, values)))
        places = [float(names.index(text_of(value))) for value in values]
        marks = {float(place): name for place, name in enumerate(names)}
        return places, {-0.5: "", **marks, len(names) - 0.5: ""}, ""
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low >= 10:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [math.log10(v) for v in numbers], {d: f"{10.0**d:g}" for d in decades}, " (log)"
    return numbers, {mark: f"{mark:g}" for mark in ticks(low, high)}, ""


def _curves(best: Sequence[Outcome]) -> Html:
    """The accuracy of the best trials over their steps."""
    curves = []
    for place, each in enumerate(best):
        lines = list(read_events(each.trial.path / "metrics.jsonl", "epoch"))
        told = [line for line in lines if line.get(each.measured_by) is not None]
        xs, ys = [line["step"] for line in told], [line[each.measured_by] for line in told]
        name = f"{place + 1}: {each.trial.name.replace(',', ', ')}"
        curves.append(Curve(name, xs, ys, color=place, dots=True))
    return chart("the best trials", "step", curves, percent=True)


def _table(outcomes: Sequence[Outcome]) -> Html:
    options = options_of(outcomes)
    rows = []
    for number, each in enumerate(outcomes, 1):
        chosen = [text_of(each.trial.chosen.get(name, "-")) for name in options]
        result = f"{each.accuracy:.2%}" if each.state == FINISHED else each.state
        digest = str(each.summary.get("params_sha256", ""))[:16]
        rows.append([number, *chosen, result, element("code", digest), each.problem])
    heads = ["", *options, "accuracy", "params_sha256", ""]
    best = [each.state == FINISHED and not number for number, each in enumerate(outcomes)]
    return element("div", table(heads, rows, best), class_="options")
