"""Trains TwoLayerNet with a sigmoid hidden layer on MNIST (book section 4.5).

10,000 updates by SGD on batches of 100. The book's code reaches 94.65 % of the test digits. The
gradients come from backpropagation, which chapter 5 explains: `numerical_gradient_of_net.py` shows
that they are the ones of this chapter, and how long those would take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.lab import Lab, Numbers, Required, at_least, main
from distnet.models import TwoLayerNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distnet.training.experiment import History

REQUIRED = [
    Required(
        "A7",
        "TwoLayerNet, sigmoid: test accuracy after 10,000 updates (quick: 1,800)",
        "test_accuracy",
        at_least(0.94),
        quick=at_least(0.88),
    )
]


def run(lab: Lab) -> Numbers:
    digits = lab.mnist
    train, test = (
        (digits.train_images, digits.train_labels),
        (digits.test_images, digits.test_labels),
    )
    network = TwoLayerNet(seed=lab.seed)
    history = lab.fit(
        network,
        *train,
        steps=1_800 if lab.quick else 10_000,
        lr=0.1,
        micro_batch_size=50,
        evaluate_on={"train": train, "test": test},
    )
    lab.picture("two_layer_net_loss", lambda figure: draw_loss(figure, history))
    lab.picture("two_layer_net_accuracy", lambda figure: draw_accuracy(figure, history))
    return {
        "first_loss": history.losses[0],
        "train_accuracy": history.accuracy("train")[-1],
        "test_accuracy": history.accuracy("test")[-1],
        "params_sha256": history.params_sha256,
    }


def draw_loss(figure: Figure, history: History) -> None:
    axes = figure.subplots()
    window = 100
    mean = np.convolve(history.losses, np.full(window, 1 / window), mode="valid")
    axes.plot(history.losses, linewidth=0.5, alpha=0.4, label="batch of 100")
    axes.plot(np.arange(window - 1, len(history.losses)), mean, label=f"mean of {window} batches")
    axes.set(xlabel="update", ylabel="cross-entropy loss (nats)", ylim=(0, None))
    axes.legend()


def draw_accuracy(figure: Figure, history: History) -> None:
    axes = figure.subplots()
    for name, marker in (("train", "o"), ("test", "s")):
        axes.plot(history.num_updates, history.accuracy(name), marker=marker, label=name)
    axes.set(xlabel="update", ylabel="accuracy (fraction of all digits)", ylim=(0, 1))
    axes.legend(loc="lower right")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
