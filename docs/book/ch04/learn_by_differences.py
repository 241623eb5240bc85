"""A network of two layers learns with gradients by central differences (book section 4.5.1).

For 784-50-10 each update would take 2 x 39,760 forward passes. So the digits are shrunk to 7 x 7
pixels and the network to 49-10-10, 610 parameters: 1,220 passes. (Xavier's initial weights, of
chapter 6, let it learn in fewer updates.) The same updates with gradients by backpropagation, of
chapter 5, take a forward and a backward pass each and lead to the same losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.data import Sampler
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, main
from distnet.nn import Linear, MicroBatch, Network, Sigmoid
from distnet.nn.gradient_check import numerical_gradient
from distnet.objectives import Classification
from distnet.optim import SGD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Gradient = Callable[[Network, Array, Array], Array]

BATCH = 50

REQUIRED = [
    Required(
        "4.5", "largest difference of any loss (quick: 30 updates)", "difference", at_most(1e-7)
    ),
    Required(
        "4.5",
        "by how much the loss has fallen after 100 updates (quick: 30)",
        "fall",
        at_least(1.2),
        quick=at_least(0.3),
    ),
]


def run(lab: Lab) -> Numbers:
    images, labels = (array[:5000] for array in lab.mnist.train)
    pixels = images.reshape(-1, 1, 7, 4, 7, 4).mean(axis=(3, 5)) / 255
    num_updates = 30 if lab.quick else 100
    losses = {
        "central differences": learn(lab, pixels, labels, by_differences, num_updates),
        "backpropagation": learn(lab, pixels, labels, by_backpropagation, num_updates),
    }
    lab.picture("differences", lambda figure: draw_losses(figure, losses))
    slow, fast = map(np.array, losses.values())
    return {"difference": np.abs(slow - fast).max(), "fall": slow[:5].mean() - slow[-5:].mean()}


def learn(
    lab: Lab, pixels: Array, labels: Array, gradient: Gradient, num_updates: int
) -> list[float]:
    """The loss on each batch before its update."""
    layers = [Linear(10, init="xavier"), Sigmoid(), Linear(10, init="xavier")]
    network = Network(layers, pixels.shape[1:], seed=lab.seed, dtype=np.float64)
    optimizer = SGD(network.parameters.values.size, dtype=np.float64)
    sampler = Sampler(len(labels), BATCH, BATCH, lab.seed)
    losses = []
    for step in range(num_updates):
        samples = sampler.batch(step)
        x, t = pixels[samples], labels[samples]
        losses.append(mean_loss(network, x, t))
        optimizer.step(network.parameters.values, gradient(network, x, t), lr=4.0, t=step + 1)
    return losses


def mean_loss(network: Network, x: Array, t: Array) -> float:
    network.parameters.refresh()  # its parameters have changed
    return Classification(network).measure(x, t)[0] / len(t)


def by_differences(network: Network, x: Array, t: Array) -> Array:
    return numerical_gradient(lambda: mean_loss(network, x, t), network.parameters.values)


def by_backpropagation(network: Network, x: Array, t: Array) -> Array:
    Classification(network).gradients(x, t, MicroBatch())
    return network.parameters.grads


def draw_losses(figure: Figure, losses: dict[str, list[float]]) -> None:
    axes = figure.subplots()
    slow, fast = losses.items()
    axes.plot(fast[1], linewidth=4, alpha=0.4, label=fast[0])
    axes.plot(slow[1], label=slow[0])
    axes.set(
        xlabel="update", ylabel=f"cross-entropy of the batch of {BATCH} (nats)", ylim=(0, None)
    )
    axes.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
