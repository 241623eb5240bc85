"""Digits of 14 x 14 pixels and a network for them: small enough to train many (section 8.1.2)."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab
from distnet.nn import Conv2d, Linear, MaxPool2d, Network, ReLU

Samples = tuple[Array, Array]  # images uint8 (N, 1, H, W), labels (N,)


def first_digits(lab: Lab, num_train: int) -> tuple[Samples, Samples]:
    """The first `num_train` training digits, and the test digits (quick: 2,000 of them)."""
    (images, labels), (test_images, test_labels) = lab.digits
    num_test = 2_000 if lab.quick else 10_000
    return (
        (images[:num_train], labels[:num_train]),
        (test_images[:num_test], test_labels[:num_test]),
    )


def small_digits(lab: Lab, num_train: int) -> tuple[Samples, Samples]:
    """The same digits, small."""
    (images, labels), (test_images, test_labels) = first_digits(lab, num_train)
    return (halved(images), labels), (halved(test_images), test_labels)


def halved(images: Array) -> Array:
    """Every 2 x 2 pixels to their mean, rounded: uint8 (N, C, 2 H, 2 W) to (N, C, H, W)."""
    n, c, h, w = images.shape
    blocks = images.reshape(n, c, h // 2, 2, w // 2, 2)
    return ((blocks.sum(axis=(3, 5), dtype=np.uint16) + 2) // 4).astype(np.uint8)


class SmallConvNet(Network):
    """Two stages of convolution, pooling and ReLU, then two linear layers: 23,946 parameters."""

    def __init__(self, seed: int = 0) -> None:
        layers = [
            Conv2d(16, 3, pad=1),
            MaxPool2d(2),
            ReLU(),
            Conv2d(32, 3, pad=1),
            MaxPool2d(2),
            ReLU(),
            Linear(64),
            ReLU(),
            Linear(10),
        ]
        super().__init__(layers, (1, 14, 14), seed=seed)
