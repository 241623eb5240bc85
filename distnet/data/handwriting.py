"""A digit on paper, drawn or photographed, as the digits of MNIST are.

MNIST's page (LeCun, Cortes, Burges) describes it: each digit was scaled to fit a box of 20 x 20
pixels, and put into 28 x 28 with its centre of mass in the middle.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array, ceil_divide
from distnet.base.resampling import covering
from distnet.data.errors import DataError

SIDE = 28
DIGIT_BOX = 20  # pixels that the larger side of a digit takes in MNIST's 28
CENTRE = 14  # the row and column, from 0, of the centre of mass in MNIST's images
FAINT = 30  # of 255: fainter ink does not count for where a digit begins
WORKING_SIDE = 400  # pixels that are looked at of a larger picture: enough for a small digit on it
FITTED_SIDE = 80  # pixels by whose brightness the paper is found
ROUNDS = 5  # of leaving out what is not paper
NORMAL = 1.4826  # of a normal distribution: the standard deviation for a median of 1
SURE = 5.0  # standard deviations of the paper's grain, which next to no grain exceeds


def as_mnist(grey: Array, what: str = "the picture") -> Array:
    """A digit on a picture `(H, W)` of bytes as MNIST has it: bytes `(28, 28)`, light on black.

    It may be dark or light, anywhere on paper of any brightness, which may be brighter on one side
    than on the other, and have a grain. What has 28 x 28 pixels is taken for an image like MNIST's,
    which is only turned light on black. Raises DataError if there is nothing on the paper.
    """
    has_size = grey.shape == (SIDE, SIDE)
    ink = _turned(grey) if has_size else _ink(_smaller(grey))
    rows, columns = (np.nonzero(ink.max(axis=axis) > FAINT)[0] for axis in (1, 0))
    if not len(rows):
        raise DataError(f"{what}: found an empty picture, expected a digit")
    if has_size:
        return ink
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = DIGIT_BOX / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    small = _scaled(box, height, width)
    return _centred((small * (255 / small.max())).round().astype(np.uint8))  # a thin pen is as dark


def on_black(grey: Array) -> Array:
    """Ink on paper `(H, W)`, dark or light, as light ink on black, as scenes of digits have it.

    Half of the pixels or more have to be paper, and what is no darker than most of it is black.
    """
    light = 255 - grey if np.median(grey) > 127 else grey
    paper = int(np.median(light))
    return (light.astype(np.int64) - paper).clip(0).astype(np.uint8)


def _turned(grey: Array) -> Array:
    """Light on black: how much each pixel differs from what most of the border shows."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = int(np.median(border))
    ink = (grey.astype(np.int64) - paper) * (1 if paper < 128 else -1)
    ink = ink.clip(0)
    return (ink * 255 // max(1, int(ink.max()))).astype(np.uint8)


def _smaller(grey: Array) -> Array:
    """The picture in float64, with at most WORKING_SIDE pixels in its larger side."""
    step = ceil_divide(max(grey.shape), WORKING_SIDE)
    if step == 1:
        return grey.astype(np.float64)
    return _scaled(grey, *(max(1, side // step) for side in grey.shape))


def _scaled(pixels: Array, height: int, width: int) -> Array:
    rows, columns = pixels.shape
    return covering(rows, height) @ pixels @ covering(columns, width).T


def _ink(grey: Array) -> Array:
    """How much darker than the paper each pixel is, or lighter, if the ink is light: 0 to 255."""
    away = grey - _paper(grey)
    ink = -away if -away.min() >= away.max() else away
    grain = NORMAL * np.median(np.abs(away))  # the standard deviation: most of it is paper
    ink = np.where(ink > SURE * grain, ink, 0)
    return ink * (255 / max(1.0, ink.max()))


def _paper(grey: Array) -> Array:
    """What the picture would be without ink: a quadratic surface through the paper's pixels.

    Those near the edges are taken for paper at first, then all that lie close to the surface.
    """
    y, x = (np.linspace(-1, 1, side) for side in grey.shape)
    step = ceil_divide(max(grey.shape), FITTED_SIDE)
    some, terms = grey[::step, ::step], _terms(y[::step], x[::step])
    is_paper = np.maximum(*np.broadcast_arrays(abs(y[::step, None]), abs(x[None, ::step]))) > 0.8
    for _ in range(ROUNDS):
        of_paper = terms[is_paper]
        weights = np.linalg.lstsq(of_paper, some[is_paper], rcond=None)[0]
        away = abs(some - terms @ weights)
        is_paper = away <= max(2.5 * NORMAL * float(np.median(away[is_paper])), 1.0)
    return _terms(y, x) @ weights


def _terms(y: Array, x: Array) -> Array:
    """The terms of a quadratic surface at the heights `y` and the widths `x`: `(H, W, 6)`."""
    y, x = np.broadcast_arrays(y[:, None], x[None, :])
    return np.stack([np.ones_like(y), y, x, y * x, y * y, x * x], axis=-1)


def _centred(digit: Array) -> Array:
    """`digit` on 28 x 28 black pixels, its centre of mass in the middle."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    weights = digit.astype(np.float64)
    places = []
    for axis, side in enumerate(digit.shape):
        mass = weights.sum(axis=1 - axis)
        centre = (mass * np.arange(side)).sum() / mass.sum()
        places.append(int(np.clip(round(CENTRE - centre), 0, SIDE - side)))
    top, left = places
    canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return canvas
