"""Recognises handwritten digits, one by one and in batches (book section 3.6).

The network is the book's, 784-50-100-10 with sigmoids. The book loads weights and explains in its
next chapters where they come from; here they are learned on the spot, in two epochs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.lab import Lab, Numbers, Required, at_least, exactly, main
from distnet.nn import Linear, Network, Sigmoid, softmax
from distnet.nn.layout import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 100

REQUIRED = [
    Required(
        "3.6.1",
        "test digits of each class",
        "test_class_counts",
        exactly([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
    ),
    Required("3.6.1", "the first training label", "first_label", exactly(5)),
    Required(
        "3.6.2",
        "test accuracy (book's weights: 0.9352; quick: a third of the training)",
        "accuracy",
        at_least(0.93),
        quick=at_least(0.88),
    ),
    Required("3.6.3", "digits that a batch of 100 reads differently", "num_differing", exactly(0)),
]


def run(lab: Lab) -> Numbers:
    digits = lab.mnist
    layers = [Linear(50, init="xavier"), Sigmoid(), Linear(100, init="xavier"), Sigmoid()]
    network = Network([*layers, Linear(10, init="xavier")], (1, 28, 28), seed=lab.seed)
    lab.fit(
        network,
        digits.train_images,
        digits.train_labels,
        steps=400 if lab.quick else 1200,
        optimizer="adam",
        lr=0.003,
        micro_batch_size=50,
    )
    pixels = digits.test_images / np.float32(255)
    single, batched = predict(network, pixels, 1), predict(network, pixels, BATCH)
    lab.picture("digits", lambda figure: draw_digits(figure, pixels, batched), size=(8, 4))
    return {
        "test_class_counts": np.bincount(digits.test_labels),
        "first_label": int(digits.train_labels[0]),
        "accuracy": np.mean(batched.argmax(axis=1) == digits.test_labels),
        "num_differing": np.sum(single.argmax(axis=1) != batched.argmax(axis=1)),
    }


def predict(network: Network, pixels: Array, batch_size: int) -> Array:
    """The probabilities `(N, 10)` that the network gives to the classes of N images."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([softmax(network.predict(pixels[i : i + batch_size])) for i in starts])


def draw_digits(figure: Figure, pixels: Array, probabilities: Array) -> None:
    """The first 20 test digits and what the network takes them for."""
    for axes, image, p in zip(figure.subplots(4, 5).flat, pixels, probabilities, strict=False):
        axes.imshow(image[0])
        axes.set_axis_off()
        axes.set_title(f"{p.argmax()}  ({p.max():.0%})", fontsize="medium")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
