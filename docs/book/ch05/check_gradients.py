"""Backpropagation against central differences (book section 5.7.3).

First every layer of the book for itself, in float64, then the TwoLayerNet on three digits, where
the book prints the mean difference of each array.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.experiments import Lab, Numbers, Required, at_most, main
from distnet.models import TwoLayerNet
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    MicroBatch,
    Network,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    Tanh,
)
from distnet.nn.gradient_check import gradient_errors, numerical_gradient, relative_error
from distnet.objectives import Classification

VECTOR, IMAGE = (6,), (2, 6, 6)
BATCH = 4

REQUIRED = [
    Required(
        "A2", "worst relative error of dx and parameters, all layers", "layers", at_most(1e-6)
    ),
    Required("A2", "relative error of the loss", "loss", at_most(1e-6)),
    Required(
        "5.7.3",
        "TwoLayerNet, sigmoid: worst mean difference of an array (quick: 5 hidden units)",
        "sigmoid",
        at_most(1e-9),
    ),
    Required("5.7.3", "TwoLayerNet, ReLU: the same", "relu", at_most(1e-9)),
]


def run(lab: Lab) -> Numbers:
    numbers: Numbers = {
        "layers": max(layer_error(*case) for case in layers()),
        "loss": loss_error(),
    }
    for activation in ("sigmoid", "relu"):
        differences = two_layer_net_differences(lab, activation)
        numbers |= {f"{activation}.{name}": value for name, value in differences.items()}
        numbers[activation] = max(differences.values())
    return numbers


def two_layer_net_differences(lab: Lab, activation: str) -> dict[str, float]:
    network = TwoLayerNet(
        hidden_size=5 if lab.quick else 50, activation=activation, seed=lab.seed, dtype=np.float64
    )
    (images, labels), _ = lab.digits
    return mean_differences(network, images[:3] / 255, labels[:3])


def layers() -> list[tuple[Layer, Shape]]:
    """The layers of the book, each with the shape of one sample that enters it."""
    return [
        (Linear(3), VECTOR),
        (Linear(3), IMAGE),
        (ReLU(), VECTOR),
        (Sigmoid(), VECTOR),
        (Tanh(), VECTOR),
        (BatchNorm(), VECTOR),
        (BatchNorm(), IMAGE),
        (Dropout(0.5), VECTOR),
        (Conv2d(3, 3), IMAGE),
        (Conv2d(3, 3, pad=1), IMAGE),
        (Conv2d(3, 5, pad=2), IMAGE),
        (MaxPool2d(2), IMAGE),
        (Flatten(), IMAGE),
    ]


def layer_error(layer: Layer, shape: Shape) -> float:
    """The worst relative error of dx and of all parameters, in training mode."""
    network = Network([layer], shape, dtype=np.float64)
    network.parameters.values[...] = np.random.default_rng(0).standard_normal(
        network.parameters.values.shape
    )
    x = away_from_kinks((BATCH, *shape))
    return max(error for _, error in gradient_errors(network.body, x, MicroBatch()))


def away_from_kinks(shape: Shape) -> Array:
    """Random values of which none is near zero or near another one, for ReLU and maxima."""
    size = int(np.prod(shape))
    values = (np.arange(size) - size // 2 + 0.5) / size
    return np.random.default_rng(1).permutation(values).reshape(shape)


def loss_error() -> float:
    x, labels = away_from_kinks((BATCH, 5)), np.arange(BATCH)
    loss = SoftmaxCrossEntropy()
    numerical = numerical_gradient(lambda: loss.forward(x, labels), x)
    loss.forward(x, labels)
    return relative_error(numerical, loss.backward())


def mean_differences(network: Network, x: Array, t: Array) -> dict[str, float]:
    """For each parameter array the mean difference of its gradients, without a sign."""

    def mean_loss() -> float:
        network.parameters.refresh()
        return Classification(network).measure(x, t)[0] / len(t)

    numerical = numerical_gradient(mean_loss, network.parameters.values)
    Classification(network).gradients(x, t, MicroBatch())
    difference = np.abs(numerical - network.parameters.grads)
    return {s.name: float(difference[s.start : s.stop].mean()) for s in network.parameters.slots}


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
