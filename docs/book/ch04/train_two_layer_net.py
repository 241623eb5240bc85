"""Trains TwoLayerNet with a sigmoid hidden layer on MNIST (book section 4.5).

10,000 updates by SGD on batches of 100. The book's code reaches 94.65 % of the test digits. The
gradients come from backpropagation, which chapter 5 explains; `learn_by_differences.py` shows that
they are those of this chapter.
"""

from __future__ import annotations

from distnet.experiments import (
    Lab,
    Numbers,
    Required,
    at_least,
    draw_accuracies,
    draw_losses,
    main,
)
from distnet.models import TwoLayerNet

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
    train, test = lab.digits
    network = TwoLayerNet(seed=lab.seed)
    history = lab.fit(
        network,
        *train,
        steps=1_800 if lab.quick else 10_000,
        lr=0.1,
        micro_batch_size=50,
        evaluate_on={"train": train, "test": test},
    )
    losses = {"training batches": history.losses}
    lab.picture("two_layer_net_loss", lambda figure: draw_losses(figure, losses))
    lab.picture("two_layer_net_accuracy", lambda figure: draw_accuracies(figure, history))
    return {
        "first_loss": history.losses[0],
        "train_accuracy": history.accuracy("train")[-1],
        "test_accuracy": history.accuracy("test")[-1],
        "params_sha256": history.params_sha256,
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
