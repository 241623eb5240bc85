"""Holds the backpropagation of SimpleConvNet against central differences (book section 7.5).

The book's sizes: images of 10 x 10, 10 filters of 3 x 3, 10 hidden units. In float64, on 4 images
instead of 1, and with the exact loss, so that the two agree to the last digits.
"""

from __future__ import annotations

import numpy as np

from distnet.experiments import Lab, Numbers, Required, at_most, main
from distnet.models import SimpleConvNet
from distnet.nn import MicroBatch
from distnet.nn.gradient_check import numerical_gradient, relative_error
from distnet.objectives import Classification

REQUIRED = [
    Required("A2", "SimpleConvNet: analytic against numerical gradient", "worst", at_most(1e-6)),
]


def run(lab: Lab) -> Numbers:
    rng = np.random.default_rng(lab.seed)
    network = SimpleConvNet(
        (1, 10, 10), filters=10, kernel=3, hidden_size=10, seed=lab.seed, dtype=np.float64
    )
    x, labels = rng.uniform(0, 1, (4, 1, 10, 10)), rng.integers(0, 10, 4)
    # Ten times the book's initial weights: few sums lie within a step of a kink of ReLU.
    network.parameters.values *= 10

    def loss() -> float:
        network.parameters.refresh()
        return Classification(network).measure(x, labels)[0] / len(x)

    numerical = numerical_gradient(loss, network.parameters.values)
    network.parameters.refresh()
    Classification(network).gradients(x, labels, MicroBatch())
    errors = {
        slot.name: relative_error(
            network.parameters.grads[slot.start : slot.stop], numerical[slot.start : slot.stop]
        )
        for slot in network.parameters.slots
    }
    return {**errors, "worst": max(errors.values())}


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
