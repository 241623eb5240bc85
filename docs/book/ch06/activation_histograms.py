"""How the spread of initial weights shapes what hidden layers put out (book section 6.2.2, 6.2.3).

1,000 inputs from N(0, 1) pass through five layers of 100 units. If the weights are too wide,
sigmoids saturate; if too narrow, all units say the same; ReLU needs twice the variance of tanh.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import COLORS, Lab, Numbers, Required, at_least, at_most, between, main
from distnet.nn import Layer, Linear, Network, ReLU, Sigmoid, Tanh

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SAMPLES, WIDTH, DEPTH = 1000, 100, 5

CASES: dict[str, tuple[type[Layer], str | float]] = {
    "sigmoid, std 1": (Sigmoid, 1.0),
    "sigmoid, std 0.01": (Sigmoid, 0.01),
    "sigmoid, Xavier": (Sigmoid, "xavier"),
    "tanh, Xavier": (Tanh, "xavier"),
    "ReLU, std 0.01": (ReLU, 0.01),
    "ReLU, Xavier": (ReLU, "xavier"),
    "ReLU, He": (ReLU, "he"),
}

REQUIRED = [
    Required("A11", "ReLU, He: std of layer 5", "ReLU, He", between(0.5, 1.2)),
    Required("A11", "ReLU, std 0.01: std of layer 5", "ReLU, std 0.01", at_most(1e-3)),
    Required("A11", "sigmoid, std 0.01: std of layer 5", "sigmoid, std 0.01", at_most(0.03)),
    Required(
        "A11",
        "sigmoid, std 1: outputs of layer 5 below 0.05 or above 0.95",
        "saturated",
        at_least(0.5),
    ),
]


def run(lab: Lab) -> Numbers:
    rng = np.random.default_rng(lab.seed)
    x = rng.standard_normal((NUM_SAMPLES, WIDTH)).astype(np.float32)
    outputs = {name: forward(x, *case, seed=lab.seed) for name, case in CASES.items()}
    lab.picture("activation_histograms", lambda figure: draw(figure, outputs), size=(9, 10))
    wide = outputs["sigmoid, std 1"][-1]
    return {
        **{name: layers[-1].std(dtype=np.float64) for name, layers in outputs.items()},
        **{f"{name}, layer 1": layers[0].std(dtype=np.float64) for name, layers in outputs.items()},
        "saturated": np.mean((wide < 0.05) | (wide > 0.95)),
    }


def forward(x: Array, activation: type[Layer], init: str | float, seed: int) -> list[Array]:
    """The outputs of the five layers, `(1000, 100)` each."""
    layers = [layer for _ in range(DEPTH) for layer in (Linear(WIDTH, init=init), activation())]
    network = Network(layers, (WIDTH,), seed=seed)
    outputs = []
    for layer in network.body.layers:
        x = layer.forward(x)
        outputs.append(x)
    return outputs[1::2]


def draw(figure: Figure, outputs: dict[str, list[Array]]) -> None:
    """A row of histograms for each case, a column for each layer."""
    panels = figure.subplots(len(outputs), DEPTH, sharey=True)
    for row, (name, layers) in zip(panels, outputs.items(), strict=True):
        low = -1 if name.startswith("tanh") else 0
        for number, (axes, y) in enumerate(zip(row, layers, strict=True), start=1):
            # What lies beyond the last bin is counted in it.
            axes.hist(np.clip(y, low, 1).ravel(), bins=30, range=(low, 1), color=COLORS[0])
            axes.set(title=f"layer {number}, std {y.std():.2g}", ylim=(0, 40_000), yticks=[])
            axes.title.set_fontsize("small")
            axes.tick_params(labelsize="small")
        row[0].set_ylabel(name)
    figure.supxlabel(
        "output of a unit (100,000 in a layer; bars end at 40,000, the last holds all above 1)"
    )


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
