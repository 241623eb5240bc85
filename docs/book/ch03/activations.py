"""Step, sigmoid and ReLU: values and curves (book section 3.2).

The smooth ones are the layers that networks use, applied to vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, exactly, main, near
from distnet.nn import ReLU, Sigmoid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required("3.2", "step of -1, 0, 2", "step", exactly([0, 0, 1])),
    Required(
        "3.2", "sigmoid of -1, 1, 2", "sigmoid", near([0.26894142, 0.73105858, 0.88079708], 1e-8)
    ),
    Required("3.2", "sigmoid of -1000 and 1000, no overflow", "sigmoid_far", exactly([0, 1])),
    Required("3.2", "ReLU of -1, 0, 2", "relu", exactly([0, 0, 2])),
]


def step(x: Array) -> Array:
    """1 where x > 0, else 0."""
    return (x > 0).astype(np.int64)


def sigmoid(x: Array) -> Array:
    layer = Sigmoid()
    layer.build(x.shape, x.dtype)
    return layer.forward(x)


def relu(x: Array) -> Array:
    layer = ReLU()
    layer.build(x.shape, x.dtype)
    return layer.forward(x)


def run(lab: Lab) -> Numbers:
    lab.picture("activations", draw_activations, size=(8, 3.2))
    return {
        "step": step(np.array([-1.0, 0.0, 2.0])),
        "sigmoid": sigmoid(np.array([-1.0, 1.0, 2.0])),
        "sigmoid_far": sigmoid(np.array([-1000.0, 1000.0])),
        "relu": relu(np.array([-1.0, 0.0, 2.0])),
    }


def draw_activations(figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    x = np.linspace(-5, 5, 501)
    left.plot(x, step(x), label="step")
    left.plot(x, sigmoid(x), label="sigmoid")
    left.set(xlabel="x", ylabel="h(x)", title="bounded")
    left.legend()
    right.plot(x, relu(x), label="ReLU")
    right.plot(x, sigmoid(x), label="sigmoid")
    right.set(xlabel="x", ylabel="h(x)", title="ReLU lets through what is positive")
    right.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
