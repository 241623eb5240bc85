"""One linear unit cannot learn XOR, two layers can (book sections 2.4 and 2.5).

The book sets the weights of chapter 2 by hand; here both networks learn theirs, with the training
loop that later trains the deep ones. A linear layer with two outputs, the larger of which wins, is
a perceptron: which one wins changes along a straight line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from perceptron import ROWS, xor

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_most, exactly, main, near
from distnet.nn import Linear, Network, Tanh, softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure


NUM_RANDOM = 100_000

REQUIRED = [
    Required("2.4", "rows right, the best of 100,000 random perceptrons", "random", exactly(3)),
    Required("2.4", "rows of XOR right, one linear layer", "one_layer", at_most(3)),
    Required("2.4", "its loss, that of guessing, ln 2", "one_layer_loss", near(0.693147, 1e-4)),
    Required("2.5", "rows of XOR right, two layers", "two_layers", exactly(4)),
]


def run(lab: Lab) -> Numbers:
    targets = xor(*ROWS.T)
    networks = {
        "one layer": Network([Linear(2)], (2,), seed=lab.seed),
        "two layers": Network([Linear(4), Tanh(), Linear(2)], (2,), seed=lab.seed),
    }
    rows = ROWS.astype(np.float32)
    one, two = (learn(lab, network, rows, targets) for network in networks.values())
    lab.picture("xor", lambda figure: draw_probabilities(figure, networks), size=(8, 3))
    return {
        "random": best_random(lab.seed),
        "one_layer": round(len(ROWS) * one["accuracy"]),
        "one_layer_loss": one["loss"],
        "two_layers": round(len(ROWS) * two["accuracy"]),
    }


def learn(lab: Lab, network: Network, rows: Array, targets: Array) -> dict[str, float]:
    """How well `network` knows the truth table after 1,000 updates."""
    data = {"xor": (rows, targets)}
    history = lab.fit(network, rows, targets, steps=1000, batch_size=4, lr=0.5, evaluate_on=data)
    return history.evaluations["xor"][-1]


def best_random(seed: int) -> int:
    """How many rows of XOR the best of many random perceptrons gets right."""
    rng = np.random.default_rng(seed)
    weights, biases = rng.standard_normal((NUM_RANDOM, 2)), rng.standard_normal((NUM_RANDOM, 1))
    outputs = weights @ ROWS.T + biases > 0
    return int((outputs == xor(*ROWS.T)).sum(axis=1).max())


def draw_probabilities(figure: Figure, networks: dict[str, Network]) -> None:
    """How sure each network is, over the plane of its inputs, that the answer is 1."""
    grid = np.linspace(-0.5, 1.5, 101, dtype=np.float32)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    targets = xor(*ROWS.T)
    panels = figure.subplots(1, 2)
    for axes, (name, network) in zip(panels, networks.items(), strict=True):
        p = softmax(network.predict(points))[:, 1].reshape(len(grid), len(grid))
        image = axes.pcolormesh(grid, grid, p, vmin=0, vmax=1, cmap="PuOr_r")
        for value, marker in ((0, "o"), (1, "^")):
            x1, x2 = ROWS[targets == value].T
            label = f"XOR = {value}"
            axes.plot(x1, x2, "w" + marker, markersize=9, markeredgecolor="black", label=label)
        axes.set(title=name, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
        axes.set(xticks=(0, 1), yticks=(0, 1))
    figure.colorbar(image, ax=panels, label="probability of 1")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
