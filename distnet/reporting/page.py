"""The page: its sections, one after the other, and what stands around them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.data import Samples
from distnet.nn import Network, softmax
from distnet.reporting import looks
from distnet.reporting.charts import Curve, bars, chart
from distnet.reporting.html import Html, document, element, picture, table
from distnet.reporting.run_files import NUM_SHOWN_RANKS, RunFiles
from distnet.reporting.trace import excerpt
from distnet.training import columns

STYLE = Path(__file__).with_name("page.css")
MOST_CLASSES = 25  # of a matrix that is shown whole
NUM_CONFUSIONS = 20
NUM_MISTAKES = 12


@dataclass(frozen=True)
class Examined:
    """A network and what it made of samples, logits `(N, K)`; `picture` is a sample to follow."""

    network: Network
    data: str
    samples: Samples
    logits: Array
    picture: int


def page(runs: Sequence[RunFiles], examined: Mapping[str, Examined]) -> str:
    """The HTML of a report; examined: by the name of the run, for those that could be."""
    names = [run.name for run in runs]
    title = f"distnet: {', '.join(names)}"
    sections = [
        element("h1", title),
        results(runs),
        curves(runs),
        *(of_run(run, examined.get(run.name), len(runs) > 1) for run in runs),
        configuration(runs),
        environment(runs),
    ]
    return document(title, STYLE.read_text(), sections)


def results(runs: Sequence[RunFiles]) -> Html:
    """A row for each run: what came out, and the hash that others can compare."""
    rows = []
    for run in runs:
        last = run.epochs[-1] if run.epochs else {}
        figures = {**last, **run.summary}
        accuracy, loss = figures.get("test_accuracy"), figures.get("test_loss")
        rows.append(
            [
                run.name,
                "finished" if run.summary else "not finished",
                run.num_done,
                _shown("accuracy", accuracy),
                _shown("loss", loss),
                figures.get("ranks", len(last.get("compute_seconds") or []) or "-"),
                _shown("images_per_second", figures.get("images_per_second")),
                element("code", str(figures.get("params_sha256", "-"))[:16]),
            ]
        )
    heads = ["run", "", "steps", "test accuracy", "test loss", "ranks", "images/s", "params_sha256"]
    return table(heads, rows)


def curves(runs: Sequence[RunFiles]) -> Html:
    """Loss and accuracy over the steps, of training and of each set, all runs in one chart."""
    charts = []
    for metric in metrics_of(runs):
        percent = metric == "accuracy"
        name = f"{metric} of training" + (": batches, and averages of epochs" * bool(runs))
        charts.append(chart(name, "step", list(_training(runs, metric)), percent))
        for of in dict.fromkeys(of for run in runs for of in run.sets()):
            lines = [
                Curve(run.name, *_series(run.epochs, f"{of}_{metric}"), color=at, dots=True)
                for at, run in enumerate(runs)
            ]
            charts.append(chart(f"{metric} on the {of} samples", "step", lines, percent))
    rates = [Curve(run.name, *_series(run.steps, "lr"), color=at) for at, run in enumerate(runs)]
    charts.append(chart("learning rate", "step", rates))
    shown = [each for each in charts if each]
    if not shown:
        return Html("")
    return element(
        "section", element("h2", "Curves"), element("div", *shown, class_="grid"), id="curves"
    )


def metrics_of(runs: Sequence[RunFiles]) -> list[str]:
    """The names of what was measured in training steps: loss, accuracy, or others."""
    other = ("event", "step", "time", "seconds", "lr")
    lines = [line for run in runs for line in run.steps[:1]]
    found = [key for line in lines for key in line if key not in other]
    epochs = [key for run in runs for line in run.epochs[:1] for key in line]
    found += [key.removeprefix("train_") for key in epochs if key.startswith("train_")]
    return list(dict.fromkeys(found))


def of_run(run: RunFiles, examined: Examined | None, several: bool) -> Html:
    """What concerns one run: its mistakes, its layers, its ranks."""
    parts = [*_network(examined), *_ranks(run)]
    if not parts:
        return Html("")
    return element("section", element("h2", run.name) if several else "", *parts)


def configuration(runs: Sequence[RunFiles]) -> Html:
    """All options; those in which the runs differ stand out, and come first."""
    names = dict.fromkeys(name for run in runs for name in run.config)
    rows = [[name, *(_option(run.config, name) for run in runs)] for name in names]
    return _compared("Configuration", "option", runs, rows)


def environment(runs: Sequence[RunFiles]) -> Html:
    """The kernels that computed the runs, and the data."""
    found = [run.environment() for run in runs]
    for entries, run in zip(found, runs, strict=True):
        data = dict(run.best.model.get("data", {})) if run.best else {}
        entries |= {f"data {key}": value for key, value in data.items()}
    names = dict.fromkeys(name for entries in found for name in entries)
    rows = [[name, *(str(entries.get(name, "-")) for entries in found)] for name in names]
    return _compared("Environment", "", runs, rows)


def _compared(
    title: str, what: str, runs: Sequence[RunFiles], rows: Sequence[Sequence[object]]
) -> Html:
    marked = [len(set(map(str, row[1:]))) > 1 for row in rows]
    order = sorted(range(len(rows)), key=lambda at: not marked[at])
    note = ""
    if len(runs) > 1:
        count = sum(marked)
        text = f"{count or 'none'} of {len(rows)} differ{'s' * (count == 1)}"
        note = element("p", text, class_="quiet")
    heads = [what, *(run.name for run in runs)]
    shown = table(heads, [rows[at] for at in order], [marked[at] for at in order])
    whole = element("div", shown, class_="options")
    return element("section", element("h2", title), note, whole, id=title.lower())


def _network(examined: Examined | None) -> Iterator[Html]:
    if examined is None:
        return
    network, targets = examined.network, examined.samples.targets
    classes = network.classes
    matrix = looks.confusion(examined.logits, targets, len(classes))
    right = int(matrix.trace())
    yield element("h3", "Which class is taken for which")
    yield element(
        "p",
        f"{right:,} of {len(targets):,} samples of {examined.data} are recognised, "
        f"{right / len(targets):.2%}. Classes in rows, what they are taken for in columns.",
    )
    yield _matrix(matrix, classes)
    yield from _mistakes(examined)
    if len(network.input_shape) == 3:
        yield from _layers(examined)


def _matrix(matrix: Array, classes: Sequence[str]) -> Html:
    if len(classes) > MOST_CLASSES:
        wrong = matrix - np.diag(matrix.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_CONFUSIONS]
        pairs = [divmod(int(place), len(classes)) for place in order]
        rows = [[classes[t], classes[p], wrong[t, p]] for t, p in pairs if wrong[t, p]]
        return table(["class", "taken for", "samples"], rows)
    largest = max(int((matrix - np.diag(matrix.diagonal())).max()), 1)
    rows = []
    for number, counts in enumerate(matrix):
        total = max(int(counts.sum()), 1)
        cells = []
        for other, count in enumerate(counts):
            is_right = number == other
            share = count / total if is_right else count / largest
            kind = "right" if is_right else "wrong"
            cells.append(element("span", count, class_=kind, style=f"--share: {share:.3f}"))
        rows.append([classes[number], *cells, element("span", f"{counts[number] / total:.2%}")])
    return element("div", table(["", *classes, "found"], rows), class_="matrix")


def _mistakes(examined: Examined) -> Iterator[Html]:
    inputs, targets = examined.samples
    classes = examined.network.classes
    worst = looks.worst_mistakes(examined.logits, targets, NUM_MISTAKES)
    yield element("h3", "The worst mistakes")
    if not worst:
        yield element("p", "None: every sample is recognised.")
        return
    yield element(
        "p", "Where least was left for the right class: what it is, and what it is taken for."
    )
    tiles = []
    for each in worst:
        text = f"{classes[each.target]}, taken for {classes[each.taken_for]}"
        sure = f"{each.probabilities[each.taken_for]:.1%}"
        detail = f"{sure} sure, sample {each.sample}"
        image = inputs[each.sample]
        shown = _image(image, f"{text}, {detail}") if image.ndim == 3 else ""
        tiles.append(
            element("div", shown, text, element("span", detail, class_="quiet"), class_="tile")
        )
    yield element("div", *tiles, class_="tiles mistakes")


def _layers(examined: Examined) -> Iterator[Html]:
    network, number = examined.network, examined.picture
    if (found := looks.filters(network)) is not None:
        name, drawn = found
        yield element("h3", "The filters of the first convolution")
        yield element("p", f"{name}: from its least number, black, to its largest, white.")
        yield picture(drawn, f"the filters {name}", scale=looks.scale(drawn, 360))
    yield element("h3", "A picture on its way through the layers")
    image, target = examined.samples.inputs[number], int(examined.samples.targets[number])
    yield element(
        "p",
        f"Sample {number}, {network.classes[target]}. Each square is a channel, black the least "
        f"number of the layer and white the largest; of more than {looks.MAX_CHANNELS} channels "
        "the first ones.",
    )
    tiles = [element("div", _image(image, "the sample"), "input", class_="tile")]
    for name, shape, drawn in looks.answers(network, image):
        shown = picture(drawn, f"the answer of {name}", looks.scale_of_answer(drawn))
        size = element("span", shape, class_="quiet")
        tiles.append(element("div", shown, name, size, class_="tile"))
    yield element("div", *tiles, class_="tiles layers")
    chances = softmax(examined.logits[number : number + 1])[0]
    order = np.argsort(-chances, kind="stable")[:3]
    told = ", ".join(f"{network.classes[k]} ({chances[k]:.2%})" for k in order)
    yield element("p", f"Its most probable classes are {told}.")


def _ranks(run: RunFiles) -> Iterator[Html]:
    shares = list(run.shares())[:NUM_SHOWN_RANKS]
    drawn = excerpt(run.trace) if run.trace else Html("")
    if len(shares) < 2 and not drawn:
        return
    yield element("h3", "Ranks")
    if len(shares) > 1:
        rows = [
            (f"rank {rank}", (("computing", computed), ("waiting", waited)))
            for rank, computed, waited in shares
        ]
        yield bars("Seconds in training steps", rows)
    if drawn:
        yield drawn


def _training(runs: Sequence[RunFiles], metric: str) -> Iterator[Curve]:
    for at, run in enumerate(runs):
        yield Curve(run.name, *_series(run.steps, metric), color=at, faint=True)
    for at, run in enumerate(runs):
        series = _series(run.epochs, f"train_{metric}")
        yield Curve(run.name, *series, color=at, dots=True)


def _series(lines: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    found = [line for line in lines if isinstance(line.get(key), int | float)]
    return [line["step"] for line in found], [line[key] for line in found]


def _image(image: Array, alt: str) -> Html:
    pixels = looks.as_pixels(image)
    return picture(pixels, alt, scale=looks.scale(pixels, 96))


def _shown(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    column = columns.COLUMNS.get(name)
    return column.text(value) if column else columns.text(name, value)


def _option(config: Mapping[str, Any], name: str) -> str:
    value = config.get(name, "-")
    return value if isinstance(value, str) else json.dumps(value)
