"""What a scene is, and what draws scenes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import Purpose, stream


class Part(IntEnum):
    """What scenes are for; those of different parts have nothing in common."""

    TRAIN = 0
    TEST = 1


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture and what is in it.

    image: `(C, H, W)` bytes. mask: `(H, W)` bytes, the class of every pixel. boxes: `(M, 4)` int64,
    the corners x1, y1, x2, y2 of each object in pixels, the second corner outside; labels: `(M,)`
    int64, its class. Scenes that are only masked have no objects.
    """

    image: Array
    mask: Array
    boxes: Array
    labels: Array


class Scenes(Protocol):
    """What draws scenes: scene number 0, 1, 2 and so on, each by itself and always the same."""

    def __getitem__(self, number: int) -> Scene: ...


def random_of(seed: int, part: Part, number: int) -> np.random.Generator:
    """The random numbers of one scene."""
    return np.random.Generator(stream(seed, Purpose.SCENES, step=number, layer=part))
