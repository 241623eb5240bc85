"""Recognises handwritten digits, one by one and in batches (book section 3.6).

The network is the book's, 784-50-100-10 with sigmoids. The book loads weights and explains in its
next chapters where they come from; here they are learned on the spot, in two epochs. With
`--weights DIR`, where DIR is the book's own repository, its `sample_weight.pkl` is tried too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, exactly, main
from distnet.models import ThreeLayerNet
from distnet.nn import Network, softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 100
PUBLISHED = "ch03/sample_weight.pkl"

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
        "test accuracy after two epochs (quick: two thirds of one)",
        "accuracy",
        at_least(0.93),
        quick=at_least(0.88),
    ),
    Required("3.6.3", "digits that a batch of 100 reads differently", "num_differing", exactly(0)),
    Required(
        "A4",
        "the book's sample_weight.pkl, digit by digit",
        "published_single",
        exactly(0.9352),
        needs=PUBLISHED,
    ),
    Required(
        "A4",
        "the same in batches of 100",
        "published_batched",
        exactly(0.9352),
        needs=PUBLISHED,
    ),
]


def run(lab: Lab) -> Numbers:
    (_, labels), (test_images, test_labels) = lab.digits
    pixels = test_images / np.float32(255)
    network = trained(lab)
    single, batched = predict(network, pixels, 1), predict(network, pixels, BATCH)
    lab.picture("digits", lambda figure: draw_digits(figure, pixels, batched), size=(8, 4))
    numbers = {
        "test_class_counts": np.bincount(test_labels),
        "first_label": int(labels[0]),
        "accuracy": accuracy(batched, test_labels),
        "num_differing": np.sum(single.argmax(axis=1) != batched.argmax(axis=1)),
    }
    if lab.has_published(PUBLISHED):
        lab.load_published(network, PUBLISHED)
        for name, size in (("published_single", 1), ("published_batched", BATCH)):
            numbers[name] = accuracy(predict(network, pixels, size), test_labels)
    return numbers


def trained(lab: Lab) -> Network:
    train, _ = lab.digits
    network = ThreeLayerNet(seed=lab.seed)
    steps = 400 if lab.quick else 1200
    lab.fit(network, *train, steps=steps, optimizer="adam", lr=0.003, micro_batch_size=50)
    return network


def predict(network: Network, pixels: Array, batch_size: int) -> Array:
    """The probabilities `(N, 10)` that the network gives to the classes of N images."""
    starts = range(0, len(pixels), batch_size)
    return np.concatenate([softmax(network.predict(pixels[i : i + batch_size])) for i in starts])


def accuracy(probabilities: Array, labels: Array) -> float:
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def draw_digits(figure: Figure, pixels: Array, probabilities: Array) -> None:
    """The first 20 test digits and what the network takes them for."""
    for axes, image, p in zip(figure.subplots(4, 5).flat, pixels, probabilities, strict=False):
        axes.imshow(image[0])
        axes.set_axis_off()
        axes.set_title(f"{p.argmax()}  ({p.max():.0%})", fontsize="medium")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
