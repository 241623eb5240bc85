"""How parameters start: zeros, Gaussians of a given width, Xavier and He (book section 6.2).

A layer chooses its initializer when it knows its fan-in. All draw in float64 from the generator
that the network keys by (seed, parameter).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from distnet.base.arithmetic import Generator
from distnet.base.arrays import Array, Shape
from distnet.nn import arguments
from distnet.nn.parameters import Initializer


def constant(value: float) -> Initializer:
    """Every element is `value`."""
    return partial(_full, value)


def gaussian(std: float) -> Initializer:
    """Normal with mean 0 and standard deviation `std`."""
    return partial(_normal, std)


def he(fan_in: int) -> Initializer:
    """Normal with std sqrt(2 / fan_in), for ReLU (He et al. 2015, eq. 10)."""
    return gaussian(float(np.sqrt(2 / fan_in)))


def xavier(fan_in: int) -> Initializer:
    """Normal with std sqrt(1 / fan_in), for sigmoid and tanh.

    The form of the book (section 6.2.2); Glorot & Bengio (2010, eq. 12) average fan-in and fan-out.
    """
    return gaussian(float(np.sqrt(1 / fan_in)))


def xavier_sigmoid(fan_in: int) -> Initializer:
    """Normal with std 4 sqrt(1 / fan_in): a sigmoid's slope at 0 is 1/4, that of tanh is 1."""
    return gaussian(float(4 * np.sqrt(1 / fan_in)))


NAMED = {"he": he, "xavier": xavier, "xavier_sigmoid": xavier_sigmoid}


def checked_init(owner: str, init: object) -> str | float:
    """The argument `init` of a layer: a key of `NAMED` or a standard deviation; else ValueError."""
    names = ", ".join(map(repr, NAMED))
    if isinstance(init, str) and init in NAMED:
        return init
    expected = f"{names} or a standard deviation of at least 0"
    return arguments.real(owner, "init", init, expected, lambda std: std >= 0)


def weight_initializer(init: str | float, fan_in: int) -> Initializer:
    """What a layer's `init` argument names: "he", "xavier" or a standard deviation."""
    init = checked_init("weights", init)
    return NAMED[init](fan_in) if isinstance(init, str) else gaussian(init)


def bilinear(rng: Generator, shape: Shape) -> Array:
    """For a transposed convolution, `(C, F, KH, KW)`: each channel is interpolated by itself.

    The triangles of bilinear interpolation by KH / 2 and KW / 2, whose sides are even.
    """
    c, f, kh, kw = shape
    rows, columns = (1 - np.abs(np.arange(k) - (k - 1) / 2) / (k / 2) for k in (kh, kw))
    return np.eye(c, f)[:, :, None, None] * np.outer(rows, columns)


# Functions of the module, since those inside a function cannot be pickled.


def _full(value: float, rng: Generator, shape: Shape) -> Array:
    return np.full(shape, value)


def _normal(std: float, rng: Generator, shape: Shape) -> Array:
    values = rng.standard_normal(shape)
    values *= std  # in place: the largest weights of VGG take 0.8 GB in float64
    return values
