"""AND, NAND and OR are one perceptron each, XOR is three in two layers (book 2.1 to 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from perceptron import AND, NAND, OR, ROWS, Bits, Perceptron, xor

from distnet.experiments import COLORS, Lab, Numbers, Required, exactly, main

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REQUIRED = [
    Required("A1", "AND of 00, 10, 01, 11", "and", exactly([0, 0, 0, 1])),
    Required("A1", "NAND", "nand", exactly([1, 1, 1, 0])),
    Required("A1", "OR", "or", exactly([0, 1, 1, 1])),
    Required("A1", "XOR", "xor", exactly([0, 1, 1, 0])),
]


def run(lab: Lab) -> Numbers:
    a, b = ROWS.T
    tables = {"and": AND(a, b), "nand": NAND(a, b), "or": OR(a, b), "xor": xor(a, b)}
    lab.picture("gates", lambda figure: draw_gates(figure, tables), size=(9, 2.6))
    return tables


def draw_gates(figure: Figure, tables: dict[str, Bits]) -> None:
    """The four inputs of each gate with the lines where its perceptrons change their mind."""
    lines = {"and": [AND], "nand": [NAND], "or": [OR], "xor": [NAND, OR]}
    for axes, (name, outputs) in zip(figure.subplots(1, 4), tables.items(), strict=True):
        for perceptron in lines[name]:
            draw_boundary(axes, perceptron)
        for value, marker in ((0, "o"), (1, "^")):
            x1, x2 = ROWS[outputs == value].T
            axes.plot(x1, x2, marker, color=COLORS[value], markersize=9, label=f"y = {value}")
        axes.set(title=name.upper(), xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
        axes.set(xlim=(-0.4, 1.6), ylim=(-0.4, 1.6), xticks=(0, 1), yticks=(0, 1))
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center")


def draw_boundary(axes: Axes, perceptron: Perceptron) -> None:
    (w1, w2), b = perceptron.weights, perceptron.bias
    x1 = np.array([-1, 2])
    axes.plot(x1, -(w1 * x1 + b) / w2, color="0.4", linewidth=1, linestyle="-")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
