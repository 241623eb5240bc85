"""What pictures with boxes and masks share: colours of classes, rectangles with names."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A row of red, green and blue, 0 to 255, for every class of the road scenes, in their order.
ROAD_COLOURS = np.array(
    [
        (135, 185, 245),  # sky
        (150, 105, 75),  # building
        (0, 110, 0),  # tree
        (140, 210, 100),  # grass
        (95, 95, 95),  # road
        (255, 255, 255),  # lane
        (215, 30, 30),  # car
        (250, 215, 0),  # sign
    ],
    np.uint8,
)

# The same for digit scenes: the background, then the digits 0 to 9 (Tableau's ten).
DIGIT_COLOURS = np.array(
    [
        (0, 0, 0),
        (31, 119, 180),
        (255, 127, 14),
        (44, 160, 44),
        (214, 39, 40),
        (148, 103, 189),
        (140, 86, 75),
        (227, 119, 194),
        (127, 127, 127),
        (188, 189, 34),
        (23, 190, 207),
    ],
    np.uint8,
)


GOLDEN = (5**0.5 - 1) / 2  # of a circle: steps that come close to none before


def colours_of(num_classes: int, known: Array) -> Array:
    """The colours `(K, 3)` of so many classes: the known ones, and light ones for more of them."""
    more = range(len(known), num_classes)
    hues = (colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.45, 1) for number in more)
    return np.array([*known, *(np.multiply(255, hue) for hue in hues)]).astype(np.uint8)


def draw_boxes(axes: Axes, boxes: Array, names: Iterable[str], colour: str = "#56B4E9") -> None:
    """Rectangles x1, y1, x2, y2, `(M, 4)`, on a picture that `imshow` drew, with names above."""
    from matplotlib.patches import Rectangle

    for (x1, y1, x2, y2), name in zip(np.asarray(boxes).tolist(), names, strict=True):
        corner = x1 - 0.5, y1 - 0.5  # imshow has the middle of the first pixel at 0
        axes.add_patch(
            Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=0.8)
        )
        axes.text(x1 - 0.5, y1 - 1, name, color=colour, fontsize="x-small", va="bottom")
