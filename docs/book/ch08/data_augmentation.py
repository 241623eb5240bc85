"""Digits that are turned, scaled and shifted teach more than the same ones again (section 8.1.2).

500 digits, 60 epochs: as they are, and with every digit changed anew each time it is seen. The
random bits are a function of seed, step and micro-batch, so any rank makes the same changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from small_digits import Samples, SmallConvNet, small_digits

from distnet.base.arrays import Array
from distnet.data import random_affine
from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.training.fit import Augment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "augm",
        "data augmentation: accuracy beyond that without, each of 2 seeds (quick: 1 seed)",
        "gains",
        at_least(0.004),
    ),
]


def change(images: Array, bits: Array) -> Array:
    """Turns by up to 12 degrees, scales by up to a tenth, shifts by up to a pixel."""
    return random_affine(images, bits, 12.0, (0.9, 1.1), 1.0)


def run(lab: Lab) -> Numbers:
    train, test = small_digits(lab, 500)
    seeds = [lab.seed + i for i in range(1 if lab.quick else 2)]
    plain = [final_accuracy(lab, seed, None, train, test) for seed in seeds]
    augmented = [final_accuracy(lab, seed, change, train, test) for seed in seeds]
    lab.picture("augmented", lambda figure: draw_changed(figure, lab, train[0][:5]), (6.4, 4))
    gains = [more - less for more, less in zip(augmented, plain, strict=True)]
    return {"plain": plain, "augmented": augmented, "gains": gains}


def final_accuracy(
    lab: Lab, seed: int, augment: Augment | None, train: Samples, test: Samples
) -> float:
    history = lab.fit(
        SmallConvNet(seed=seed),
        *train,
        epochs=60,
        optimizer="adam",
        lr=0.001,
        batch_size=50,
        micro_batch_size=25,
        augment=augment,
        evaluate_on={"test": test},
        evaluate_every=10_000,
        seed=seed,
    )
    return history.accuracy("test")[-1]


def draw_changed(figure: Figure, lab: Lab, images: Array) -> None:
    """Each digit as it is, and six changes of it."""
    rng = np.random.default_rng(lab.seed)
    grid = figure.subplots(len(images), 7)
    for column, axes in enumerate(grid.T):
        bits = rng.integers(0, 2**64, len(images), np.uint64)
        shown = change(images, bits) if column else images
        for each, image in zip(axes, shown, strict=True):
            each.imshow(image[0])
            each.axis("off")
    grid[0, 0].set_title("as it is")
    grid[0, 4].set_title("turned, scaled and shifted")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
