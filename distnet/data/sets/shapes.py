"""Coloured shapes, plain or striped: pictures that are drawn from a seed and need no file.

Place, size, angle and both colours are random, so that no pixel and no colour tells anything by
itself: a linear classifier finds next to nothing, a small convolutional network nearly all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distnet.base.arrays import Array
from distnet.data.dataset import Dataset, Samples
from distnet.data.source import Source

SHAPE_NAMES = ("disc", "square", "triangle", "cross", "ring")
CLASSES = tuple(f"{filling} {shape}" for shape in SHAPE_NAMES for filling in ("plain", "striped"))
SIZE = 32  # pixels
NUM_TRAIN, NUM_TEST = 10_000, 2_000
NOISE = 16  # grey values up or down
UNIT = 256  # a shape's radius in the whole numbers that it is drawn with
TURNS = 1024  # a shape turns by up to an eighth
MAX_PER_PIECE = 500  # images that are drawn at a time

Integers = NDArray[np.int32]


def load(data_dir: Path | None = None, cache_dir: Path | None = None) -> Dataset:
    """10,000 and 2,000 pictures `(3, 32, 32)` of bytes; the arguments are not used."""
    everything = draw(NUM_TRAIN + NUM_TEST)
    train, test = (
        Samples(everything.inputs[part], everything.targets[part])
        for part in (slice(NUM_TRAIN), slice(NUM_TRAIN, None))
    )
    return Dataset("shapes", train, test, CLASSES)


def draw(num_samples: int, seed: int = 0) -> Samples:
    """The first `num_samples` pictures `(N, 3, 32, 32)` of `seed`, bytes, and their classes.

    Everything is counted in whole numbers once sine and cosine are rounded, so that all machines
    draw the same.
    """
    images = np.empty((num_samples, 3, SIZE, SIZE), np.uint8)
    labels = (np.arange(num_samples) % len(CLASSES)).astype(np.uint8)
    words = np.random.Philox(key=[seed, 0]).random_raw(2 * num_samples).reshape(num_samples, 2)
    noise = np.random.Generator(np.random.Philox(key=[seed, 1]))
    for start in range(0, num_samples, MAX_PER_PIECE):
        piece = slice(start, start + MAX_PER_PIECE)
        drawn = _drawn(labels[piece], words[piece])
        drawn += noise.integers(-NOISE, NOISE + 1, drawn.shape, np.int16)
        images[piece] = drawn.clip(0, 255)
    return Samples(images, labels)


def _drawn(labels: Array, words: Array) -> NDArray[np.int16]:
    """Pictures without noise; `words` are two of 64 random bits for each, taken byte by byte."""
    fields = np.ascontiguousarray(words).view(np.uint8).astype(np.int32)  # (N, 16)
    angle, radius, down, right = (field[:, None, None] for field in fields.T[:4])
    colour, offset = fields[:, 4:7], fields[:, 7:10]
    ground = (colour + 64 + offset // 2) % 256  # at least 64 away from the colour, each of three
    u, v = _coordinates(angle - 128, 8 + radius * 6 // 256, down % 7 - 3, right % 7 - 3)
    inside = np.empty(u.shape, bool)
    for number, shape in enumerate(SHAPE_NAMES):
        chosen = labels // 2 == number
        inside[chosen] = _mask(shape, u[chosen], v[chosen])
    stripes = (u * 3 // UNIT) % 2 == 1
    inside &= ~stripes | (labels % 2 == 0)[:, None, None]
    picture = np.where(inside[:, None], colour[:, :, None, None], ground[:, :, None, None])
    return picture.astype(np.int16)


def _coordinates(
    angle: Integers, radius: Integers, down: Integers, right: Integers
) -> tuple[Integers, Integers]:
    """Each pixel in the turned system of its picture's shape, in units of radius / `UNIT`.

    The arguments are `(N, 1, 1)`, the angle in `1 / TURNS` turns, the others in pixels.
    """
    turn = angle * (2 * np.pi / TURNS)
    cos, sin = (np.rint(part * (1 << 16)).astype(np.int32) for part in (np.cos(turn), np.sin(turn)))
    y = 2 * np.arange(SIZE, dtype=np.int32)[:, None] - (SIZE - 1) - 2 * down  # in half pixels
    x = 2 * np.arange(SIZE, dtype=np.int32) - (SIZE - 1) - 2 * right
    u, v = cos * x + sin * y, cos * y - sin * x
    return tuple(each * (UNIT // 2) // (radius << 16) for each in (u, v))


def _mask(shape: str, u: Integers, v: Integers) -> NDArray[np.bool_]:
    """Where the shape is, which fills most of the square from -1 to 1."""
    across, along = abs(u), abs(v)
    smaller, larger = np.minimum(across, along), np.maximum(across, along)
    square = u * u + v * v
    one = UNIT * UNIT
    match shape:
        case "disc":
            return square < one * 8 // 10
        case "square":
            return larger < UNIT * 8 // 10
        case "triangle":
            return (v > -UNIT // 2) & (across * 7 // 4 + v < UNIT)
        case "cross":
            return (smaller < UNIT * 3 // 10) & (larger < UNIT)
        case "ring":
            return (square < one) & (square > one * 35 // 100)
    raise ValueError(f"found shape {shape}, expected one of {SHAPE_NAMES}")


SHAPES = Source(
    load,
    "10,000 + 2,000 drawn shapes, 32 × 32 in colour, 10 classes",
    "that of distnet",
    "docs/data.md",
    place="drawn when it is loaded",
)
