"""The networks of chapter 6: hidden layers of 100 units on digits, with what the chapter adds."""

from __future__ import annotations

from collections.abc import Callable

from distnet.base.arrays import Array
from distnet.experiments import Lab
from distnet.nn import BatchNorm, Layer, Linear, Network, ReLU

WIDTH = 100
BOOK_EPS = 1e-6  # of batch normalisation


def multi_layer_net(
    depth: int,
    *,
    init: str | float = "he",
    batch_norm: bool = False,
    dropout: Callable[[], Layer] | None = None,
    seed: int = 0,
) -> Network:
    """784-100-...-100-10 with `depth` hidden layers: linear, batch norm, ReLU, dropout each.

    init: "he", "xavier" or the standard deviation of all weights; dropout() makes a layer of it.
    """
    layers: list[Layer] = []
    for _ in range(depth):
        layers += [Linear(WIDTH, init=init)]
        layers += [BatchNorm(eps=BOOK_EPS)] if batch_norm else []
        layers += [ReLU()]
        layers += [dropout()] if dropout else []
    return Network([*layers, Linear(10, init=init)], (1, 28, 28), seed=seed)


def first_digits(lab: Lab, count: int) -> tuple[Array, Array]:
    """The first `count` training images and their labels: few enough to be learned by heart."""
    images, labels = lab.digits[0]
    return images[:count], labels[:count]
