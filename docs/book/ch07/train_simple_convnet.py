"""Trains SimpleConvNet on MNIST (book section 7.5).

Adam with learning rate 0.001 on batches of 100, 20 epochs. The printed book reaches 98.96 % of the
test digits, and the weights that it publishes now, after one epoch, 96.00 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.models import SimpleConvNet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from distnet.training.fit import History

REQUIRED = [
    Required(
        "A19",
        "SimpleConvNet: test accuracy after 1 epoch (quick: of 12,000 digits)",
        "after_1_epoch",
        at_least(0.95),
        quick=at_least(0.85),
    ),
    Required(
        "A19",
        "SimpleConvNet: test accuracy after 20 epochs (quick: 1)",
        "test_accuracy",
        at_least(0.985),
        quick=at_least(0.85),
    ),
]


def run(lab: Lab) -> Numbers:
    (images, labels), test = lab.digits
    size = 12_000 if lab.quick else 60_000
    train = images[:size], labels[:size]
    network = SimpleConvNet(seed=lab.seed)
    history = lab.fit(
        network,
        *train,
        epochs=1 if lab.quick else 20,
        optimizer="adam",
        lr=0.001,
        micro_batch_size=50,
        evaluate_on={"train": train, "test": test},
    )
    lab.picture("simple_convnet_accuracy", lambda figure: draw_accuracy(figure, history))
    return {
        "after_1_epoch": history.accuracy("test")[1],
        "train_accuracy": history.accuracy("train")[-1],
        "test_accuracy": history.accuracy("test")[-1],
        "train_accuracies": history.accuracy("train"),
        "test_accuracies": history.accuracy("test"),
        "params_sha256": history.params_sha256,
    }


def draw_accuracy(figure: Figure, history: History) -> None:
    axes = figure.subplots()
    epochs = range(len(history.num_updates))
    for name, marker in (("train", "o"), ("test", "s")):
        axes.plot(epochs[1:], history.accuracy(name)[1:], marker=marker, label=name)
    axes.set(xlabel="epoch", ylabel="accuracy (fraction of all digits)", xticks=epochs[1:])
    axes.legend(loc="lower right")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
