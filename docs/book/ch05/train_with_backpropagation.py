"""Trains TwoLayerNet with a ReLU hidden layer (book section 5.7.4), beside chapter 4's sigmoid.

10,000 updates by SGD on batches of 100; the book's code reaches 96.9 % of the test digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distnet.experiments import MARKERS, Lab, Numbers, Required, at_least, draw_losses, main
from distnet.models import TwoLayerNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distnet.training.fit import History

REQUIRED = [
    Required(
        "A8",
        "TwoLayerNet, ReLU: test accuracy after 10,000 updates (quick: 1,800)",
        "test_accuracy",
        at_least(0.965),
        quick=at_least(0.92),
    )
]


def run(lab: Lab) -> Numbers:
    histories = {activation: train(lab, activation) for activation in ("sigmoid", "relu")}
    losses = {name: history.losses for name, history in histories.items()}
    lab.picture("relu_loss", lambda figure: draw_losses(figure, losses))
    lab.picture("relu_accuracy", lambda figure: draw_test_accuracies(figure, histories))
    relu = histories["relu"]
    return {
        "train_accuracy": relu.accuracy("train")[-1],
        "test_accuracy": relu.accuracy("test")[-1],
        "sigmoid_test_accuracy": histories["sigmoid"].accuracy("test")[-1],
        "params_sha256": relu.params_sha256,
    }


def train(lab: Lab, activation: str) -> History:
    train, test = lab.digits
    return lab.fit(
        TwoLayerNet(activation=activation, seed=lab.seed),
        *train,
        steps=1_800 if lab.quick else 10_000,
        lr=0.1,
        micro_batch_size=50,
        evaluate_on={"train": train, "test": test},
    )


def draw_test_accuracies(figure: Figure, histories: dict[str, History]) -> None:
    axes = figure.subplots()
    for (name, history), marker in zip(histories.items(), MARKERS, strict=False):
        axes.plot(history.num_updates, history.accuracy("test"), marker=marker, label=name)
    axes.set(xlabel="update", ylabel="accuracy (fraction of test digits)", ylim=(0.85, 1))
    axes.legend(loc="lower right")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
