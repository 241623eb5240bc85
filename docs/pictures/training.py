"""Draws a run of the training command: its losses, and test digits with what it says they are.

mpirun -n 4 python -m distnet.train --log-every 20 --out runs/picture
python docs/pictures/training.py runs/picture --out docs/pictures/training.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import distnet
from distnet.base.arrays import Array
from distnet.experiments.pictures import COLORS, write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

ROWS, COLUMNS = 3, 8
NUM_IMAGES = 1000  # test digits, of which the least certain are shown

Digit = tuple[Array, str, str]  # pixels, caption, the caption's colour


def draw(figure: Figure, events: list[dict[str, Any]], digits: list[Digit]) -> None:
    """Losses on the left, digits on the right."""
    left, right = figure.subfigures(1, 2, width_ratios=(4, 6))
    draw_losses(left, events)
    draw_digits(right, digits)


def draw_digits(figure: SubFigure, digits: list[Digit]) -> None:
    figure.suptitle(
        f"of {NUM_IMAGES:,} test digits the {len(digits)} it is least sure of; orange: wrong",
        fontsize="medium",
    )
    panels = figure.subplots(ROWS, COLUMNS).flat
    for axes, (image, caption, color) in zip(panels, digits, strict=True):
        axes.imshow(image, cmap="gray_r")
        axes.set_title(caption, color=color, fontsize="small", pad=2)
        axes.set_axis_off()


def draw_losses(figure: SubFigure, events: list[dict[str, Any]]) -> None:
    axes = figure.subplots()
    for event, key, style, label in (
        ("train", "loss", {"linewidth": 0.8}, "a training batch"),
        ("epoch", "test_loss", {"marker": "o", "linewidth": 1.5}, "10,000 test digits"),
    ):
        points = [(each["step"], each[key]) for each in events if each["event"] == event]
        axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xlabel="step", ylabel="cross-entropy loss (nats)", yscale="log")
    axes.legend()


def least_certain(probabilities: Array, images: Array, labels: Array) -> list[Digit]:
    """The digits whose likeliest class is least likely: orange if wrong."""
    predictions = probabilities.argmax(axis=1)
    order = np.argsort(probabilities.max(axis=1))[: ROWS * COLUMNS]
    return [
        (
            images[i, 0],
            f"{predictions[i]}  {probabilities[i].max():.0%}",
            "black" if predictions[i] == labels[i] else COLORS[1],
        )
        for i in order
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/training.png"))
    options = parser.parse_args()
    events = [json.loads(line) for line in (options.run / "metrics.jsonl").open()]
    images, labels = (array[:NUM_IMAGES] for array in distnet.load_dataset().test)
    probabilities = distnet.softmax(distnet.load(options.run).predict(images))
    digits = least_certain(probabilities, images, labels)
    write_picture(options.out, lambda figure: draw(figure, events, digits), (9.5, 3.4))


if __name__ == "__main__":
    main()
