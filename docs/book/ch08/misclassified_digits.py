"""Shows the test digits that a trained DeepConvNet gets wrong (book section 8.1.1).

Three epochs with a learning rate that falls to zero come close to the 20 epochs of
`train_deep_convnet.py`. Every wrong digit goes into the numbers, with its index, its label and what
the network takes it for; the first 20 into a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_most, exactly, main
from distnet.models import DeepConvNet
from distnet.nn import Network
from distnet.optim.schedules import cosine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "8.1.1",
        "digits in the list minus those that the evaluation counts as wrong",
        "uncounted",
        exactly(0),
    ),
    Required(
        "8.1.1",
        "wrong test digits (quick: of 2,000, after 120 updates)",
        "num_wrong",
        at_most(100),
        quick=at_most(1_000),
    ),
]
BATCH = 100


def run(lab: Lab) -> Numbers:
    train, (images, labels) = lab.digits
    steps, num_test = (120, 2_000) if lab.quick else (1_800, 10_000)
    images, labels = images[:num_test], labels[:num_test]
    network = DeepConvNet(seed=lab.seed)
    history = lab.fit(
        network,
        *train,
        steps=steps,
        optimizer="adam",
        lr=cosine(0.002, steps, warmup=1 / 20),
        batch_size=BATCH,
        micro_batch_size=50,
        evaluate_on={"test": (images, labels)},
        evaluate_every=steps,
    )
    wrong = misclassified(network, images, labels)
    lab.picture("misclassified", lambda figure: draw_digits(figure, images, wrong), (6.4, 5.6))
    evaluation = history.evaluations["test"][-1]
    return {
        "num_wrong": len(wrong),
        "uncounted": len(wrong) - round(num_test * (1 - evaluation["accuracy"])),
        "test_accuracy": evaluation["accuracy"],
        "index_label_prediction": wrong,
    }


def misclassified(network: Network, images: Array, labels: Array) -> Array:
    """Index, label and prediction of every digit that `network` gets wrong, (M, 3).

    images: uint8 (N, 1, 28, 28).
    """
    scaled = images.astype(network.dtype) / 255
    parts = [scaled[i : i + BATCH] for i in range(0, len(scaled), BATCH)]
    predictions = np.concatenate([network.predict(part).argmax(axis=1) for part in parts])
    wrong = np.flatnonzero(predictions != labels)
    return np.stack([wrong, labels[wrong], predictions[wrong]], axis=1)


def draw_digits(figure: Figure, images: Array, wrong: Array) -> None:
    grid = figure.subplots(4, 5)
    for axes in grid.flat:
        axes.axis("off")
    for axes, (index, label, prediction) in zip(grid.flat, wrong, strict=False):
        axes.imshow(images[index, 0])
        axes.set_title(f"{label} as {prediction}  ({index})", fontsize="small")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
