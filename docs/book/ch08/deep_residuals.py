"""42 layers learn with shortcuts, and hardly without; 152 learn as well (book section 8.2.4).

Digits of 14 x 14 pixels, two epochs of 10,000 (He et al. 2015, arXiv:1512.03385, section 4.2, did
the same on CIFAR-10). Either network has the same layers and as many parameters; what differs is
that the input of every second convolution is added to its output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from small_digits import Samples, small_digits

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, exactly, main
from distnet.nn import (
    BatchNorm,
    Conv2d,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
)
from distnet.objectives import Classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required("8.2.4", "layers with weights", "depths", exactly([42, 152])),
    Required("8.2.4", "final loss with shortcuts / without", "loss_ratio", at_most(0.6)),
    Required(
        "8.2.4",
        "accuracy with shortcuts - without",
        "accuracy_gap",
        at_least(0.2),
        quick=at_least(0.1),
    ),
    Required(
        "8.2.4",
        "152 layers: last loss / first",
        "loss_ratio_152",
        at_most(0.8),
        quick=at_most(0.97),
    ),
    Required("8.2.4", "152 layers: gradient of conv 1 / last", "gradients_152", at_least(1e-3)),
]
CHANNELS = 16
LR_OF_152 = 0.0001  # 75 blocks that each move by 0.001 a step move their sum too far
WINDOW = 10  # steps that are averaged


def run(lab: Lab) -> Numbers:
    train, test = small_digits(lab, 5_000 if lab.quick else 10_000)
    names = {"shortcuts": (True, False), "plain": (False, False)}
    if not lab.quick:
        names |= {"shortcuts, batchnorm": (True, True), "plain, batchnorm": (False, True)}
    losses, accuracies = {}, {}
    for name, (shortcuts, batchnorm) in names.items():
        net = network(20, shortcuts, batchnorm, lab.seed)
        losses[name], accuracies[name] = learn(lab, net, train, test, epochs=2)
    deepest = network(75, True, False, lab.seed)
    gradients = gradient_sizes(deepest, train)
    size = 2_500 if lab.quick else 5_000
    some = train[0][:size], train[1][:size]
    losses_152, _ = learn(lab, deepest, some, test, epochs=1, lr=LR_OF_152)
    lab.picture("deep_residuals", lambda figure: draw_losses(figure, losses), (6.4, 4))
    final = {name: float(np.mean(values[-WINDOW:])) for name, values in losses.items()}
    return {
        "depths": [num_layers(network(blocks, True, False, 0)) for blocks in (20, 75)],
        "loss_ratio": final["shortcuts"] / final["plain"],
        "accuracy_gap": accuracies["shortcuts"] - accuracies["plain"],
        "final_losses": list(final.values()),
        "accuracies": list(accuracies.values()),
        "loss_ratio_152": float(np.mean(losses_152[-WINDOW:]) / losses_152[0]),
        "final_loss_152": float(np.mean(losses_152[-WINDOW:])),
        "gradients_152": gradients[0] / gradients[-1],
    }


def network(blocks: int, shortcuts: bool, batchnorm: bool, seed: int) -> Network:
    """One convolution, blocks of two on 7 x 7 pixels, one linear layer.

    Without batch normalisation the second one of each residual starts at zero: the whole starts as
    a network of two layers, whatever its depth (Goyal et al. 2017, section 5.1).
    """
    layers: list[Layer] = [Conv2d(CHANNELS, 3, pad=1), MaxPool2d(2), ReLU()]
    for _ in range(blocks):
        last = "he" if batchnorm or not shortcuts else 0.0
        norms = [BatchNorm() if batchnorm else None for _ in range(2)]
        block = [Conv2d(CHANNELS, 3, pad=1), norms[0], ReLU()]
        block += [Conv2d(CHANNELS, 3, pad=1, init=last), norms[1]]
        present = [layer for layer in block if layer is not None]
        layers += [Residual(present), ReLU()] if shortcuts else [*present, ReLU()]
    return Network([*layers, GlobalAvgPool2d(), Linear(10)], (1, 14, 14), seed=seed)


def num_layers(net: Network) -> int:
    return sum(isinstance(leaf, Conv2d | Linear) for leaf in net.body.leaves())


def learn(
    lab: Lab, net: Network, train: Samples, test: Samples, epochs: int, lr: float = 0.001
) -> tuple[list[float], float]:
    """The loss of every step, and the accuracy in the end."""
    history = lab.fit(
        net,
        *train,
        epochs=epochs,
        optimizer="adam",
        lr=lr,
        batch_size=50,
        micro_batch_size=25,
        evaluate_on={"test": test},
        evaluate_every=10_000,
    )
    return history.losses, history.accuracy("test")[-1]


def gradient_sizes(net: Network, train: Samples) -> list[float]:
    """Of a first batch: the Euclidean norm of the gradient of each convolution's weights."""
    objective = Classification(net)
    x, labels = net.as_input(train[0][:50]), train[1][:50]
    objective.gradients(x, labels, MicroBatch())
    slots = [slot for slot in net.parameters.slots if slot.name.endswith("weight")]
    return [float(np.linalg.norm(slot.of(net.parameters.grads))) for slot in slots]


def smooth(losses: list[float]) -> Array:
    return np.convolve(losses, np.full(WINDOW, 1 / WINDOW), mode="valid")


def draw_losses(figure: Figure, losses: dict[str, list[float]]) -> None:
    axes = figure.subplots()
    for name, values in losses.items():
        style = "--" if "batchnorm" in name else "-"
        colour = "tab:blue" if name.startswith("shortcuts") else "tab:red"
        axes.plot(smooth(values), style, color=colour, label=name)
    axes.axhline(np.log(10), color="grey", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step", ylabel="training loss (mean of ten steps)", ylim=(0, None))
    axes.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
