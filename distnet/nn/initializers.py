"""How parameters start: zeros, Gaussians of a given width, Xavier and He (book section 6.2).

A layer chooses its initializer when it knows its fan-in. All draw in float64 from the generator
that the network keys by (seed, parameter).
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.nn.parameters import Initializer


def constant(value: float) -> Initializer:
    """Every element is `value`."""
    return lambda rng, shape: np.full(shape, value)


def gaussian(std: float) -> Initializer:
    """Normal with mean 0 and standard deviation `std`."""

    def draw(rng: np.random.Generator, shape: Shape) -> Array:
        return rng.standard_normal(shape) * std

    return draw


def he(fan_in: int) -> Initializer:
    """Normal with std sqrt(2 / fan_in), for ReLU (He et al. 2015, eq. 10)."""
    return gaussian(float(np.sqrt(2 / fan_in)))


def xavier(fan_in: int) -> Initializer:
    """Normal with std sqrt(1 / fan_in), for sigmoid and tanh.

    The form of the book (section 6.2.2); Glorot & Bengio (2010, eq. 12) average fan-in and fan-out.
    """
    return gaussian(float(np.sqrt(1 / fan_in)))


def weight_initializer(init: str | float, fan_in: int) -> Initializer:
    """What a layer's `init` argument names: "he", "xavier" or a standard deviation."""
    if isinstance(init, str):
        named = {"he": he, "xavier": xavier}
        if init not in named:
            raise ValueError(f"init: found {init!r}, expected 'he', 'xavier' or a number")
        return named[init](fan_in)
    return gaussian(init)
