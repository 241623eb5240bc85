"""Many scenes as the arrays that a network is trained on."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.data.dataset import Samples
from distnet.data.scenes.scene import Scenes

IGNORED = 255  # in a mask: nobody says what this pixel is


def masked(scenes: Scenes, count: int, *, multiple: int = 1) -> Samples:
    """The first `count` scenes: images `(N, C, H, W)` and the masks `(N, H, W)`, both bytes.

    `multiple`: with black rows and columns at the lower and right edge, until both numbers are
    multiples of it; their pixels are `IGNORED` in the mask. A network that halves its images four
    times wants 16.
    """
    c, h, w = scenes[0].image.shape
    rows, columns = (-(-side // multiple) * multiple for side in (h, w))
    images = np.zeros((count, c, rows, columns), np.uint8)
    masks = np.full((count, rows, columns), IGNORED, np.uint8)
    for number in range(count):
        scene = scenes[number]
        images[number, :, :h, :w], masks[number, :h, :w] = scene.image, scene.mask
    return Samples(images, masks)


def boxed(scenes: Scenes, count: int, most: int = 5) -> Samples:
    """The first `count` scenes: images `(N, C, H, W)` bytes, and objects `(N, most, 5)` int16.

    An object is x1, y1, x2, y2 and its label; rows that stand for none have the label -1. Raises
    ValueError for a scene of more than `most`.
    """
    images = np.empty((count, *scenes[0].image.shape), np.uint8)
    objects = np.full((count, most, 5), -1, np.int16)
    for number in range(count):
        scene = scenes[number]
        if len(scene.labels) > most:
            raise ValueError(
                f"boxed: found {len(scene.labels)} objects in scene {number}, expected at most "
                f"{most}; give another `most`"
            )
        images[number] = scene.image
        objects[number, : len(scene.labels), :4] = scene.boxes
        objects[number, : len(scene.labels), 4] = scene.labels
    return Samples(images, objects)


def unpadded(objects: Array) -> tuple[Array, Array]:
    """Boxes `(M, 4)` and labels `(M,)` of one scene's `(most, 5)`."""
    real = objects[objects[:, 4] >= 0]
    return real[:, :4], real[:, 4]
