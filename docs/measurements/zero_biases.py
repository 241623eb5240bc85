"""Gradients of DeepConvNet from biases that are exactly zero, by algorithm of the convolution.

python docs/measurements/zero_biases.py

Trains with the default recipe's optimizer and schedule. After some numbers of updates it compares
the gradient of 25 training digits with that of the plain convolution in float64, and prints the
error of the whole gradient (2-norm), and the largest error of the weights and of the biases,
relative to the largest element of each parameter's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.data import Sampler, load_dataset
from distnet.models import DeepConvNet
from distnet.nn import Conv2d, Linear, MaxPool2d, MicroBatch, Network, ReLU
from distnet.objectives import Classification
from distnet.optim import make_optimizer, make_schedule

ALGORITHMS = ("im2col", "winograd2", "winograd4")
UPDATES = (0, 1, 5, 10, 30, 100)
NUM_DIGITS, BATCH_SIZE, LR, STEPS = 25, 100, 0.004, 2400


def classifier(algorithm: str, dtype: DTypeLike) -> Classification:
    """DeepConvNet without dropout, with `algorithm` in all convolutions but the first."""
    layers: list = []
    for filters, pad in ((16, 1), (32, 2), (64, 1)):
        first = algorithm if layers else "auto"
        layers += [Conv2d(filters, 3, pad=1, algorithm=first), ReLU()]
        layers += [Conv2d(filters, 3, pad=pad, algorithm=algorithm), MaxPool2d(2), ReLU()]
    network = Network([*layers, Linear(50), ReLU(), Linear(10)], (1, 28, 28), dtype=dtype)
    network.parameters.load(DeepConvNet().parameters.named())
    return Classification(network)


class Comparison:
    """The gradient of one batch by every algorithm, at any values of the parameters."""

    def __init__(self, images: Array, labels: Array) -> None:
        self.images, self.labels = images, labels
        self.exact = classifier("im2col", np.float64)
        self.others = {name: classifier(name, np.float32) for name in ALGORITHMS}

    def errors(self, values: Array) -> dict[str, tuple[float, float, float]]:
        """Of the whole gradient, the worst weight and the worst bias, by algorithm."""
        expected = self._gradient(self.exact, values)
        return {
            name: self._compare(self._gradient(other, values), expected)
            for name, other in self.others.items()
        }

    def _gradient(self, objective: Classification, values: Array) -> Array:
        parameters = objective.parameters
        parameters.values[:] = values
        parameters.refresh()
        objective.gradients(objective.as_input(self.images), self.labels, MicroBatch())
        return parameters.grads.astype(np.float64)

    def _compare(self, found: Array, expected: Array) -> tuple[float, float, float]:
        worst = {"weight": 0.0, "bias": 0.0}
        for slot in self.exact.parameters.slots:
            right, difference = slot.of(expected), slot.of(found - expected)
            kind = slot.name.rpartition(".")[2]
            worst[kind] = max(worst[kind], np.abs(difference).max() / np.abs(right).max())
        whole = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        return float(whole), worst["weight"], worst["bias"]


def measure(updates: Sequence[int] = UPDATES) -> dict[int, dict[str, tuple[float, float, float]]]:
    """The errors after so many updates of the network that F(4x4) trains."""
    images, labels = load_dataset().train
    comparison = Comparison(images[:NUM_DIGITS], labels[:NUM_DIGITS])
    trained = classifier("winograd4", np.float32)
    values, found = trained.parameters.values, {}
    optimizer = make_optimizer("adam", values.size)
    schedule, sampler = make_schedule("linear", LR, STEPS), Sampler(len(labels), BATCH_SIZE, 25, 0)
    for step in range(max(updates) + 1):
        if step in updates:
            found[step] = comparison.errors(values)
        batch = sampler.batch(step)
        trained.gradients(trained.as_input(images[batch]), labels[batch], MicroBatch(0, step, 0))
        optimizer.step(values, trained.parameters.grads, schedule(step), t=step + 1)
        trained.parameters.refresh()
    return found


def main() -> None:
    print(f"| after updates | {': whole, weights, biases | '.join(ALGORITHMS)}: the same |")
    print("|---|" + "---|" * len(ALGORITHMS))
    for step, errors in measure().items():
        cells = [", ".join(f"{e:.1e}" for e in errors[name]) for name in ALGORITHMS]
        print(f"| {step} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
