"""Scenes of handwritten digits of many sizes among clutter, as M2NIST and its kin have them.

They are made of the digits of a data set: scenes for training of those for training, scenes for the
test of those for the test, so that a network never sees a test digit before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from distnet.base.arrays import Array
from distnet.base.resampling import scaling
from distnet.data.dataset import Samples
from distnet.data.scenes.scene import Part, Scene, random_of

INK = 64  # a pixel that belongs to a digit of the data set, of 255
INK_OF_MASK = 77  # the same in a scene, of a digit's brightest pixel at 255
ONE = 256  # 1.0 where pixels are weighed
TRIES = 20  # for the place of a digit, before a scene goes without
MARGIN = 1  # pixels between a digit and the rim


def ladder(lowest: int, highest: int, steps: int = 32) -> list[int]:
    """Heights from lowest to highest, of which each is about as much larger than the last."""
    ratio = highest / lowest
    return [round(lowest * ratio ** (i / (steps - 1))) for i in range(steps)]


class DigitScenes:
    """Scenes of 1 to `most` digits in `size` pixels (rows, columns), in one channel.

    digits: images `(N, 1, H, W)` of bytes and labels. heights: of the digits in pixels, each as
    likely as the other; a digit keeps its proportions but for 15 %. overlap: the part of the
    smaller of two boxes that the other may cover, in percent. clutter: the least and the greatest
    number of strokes and fragments of digits, which belong to the background. noise: the standard
    deviation of every pixel's, in grey values. apart: of two digits one is clearly above or beside
    the other, not askew.

    A box is tight about the digit's ink. The mask has 0 for the background, 1 + label for a digit.
    Raises ValueError for digits that do not fit.
    """

    def __init__(
        self,
        digits: Samples,
        *,
        seed: int = 0,
        part: Part = Part.TRAIN,
        size: tuple[int, int] = (64, 84),
        most: int = 5,
        heights: Sequence[int] = tuple(ladder(12, 31)),
        overlap: int = 12,
        clutter: tuple[int, int] = (2, 6),
        noise: int = 20,
        apart: bool = False,
    ) -> None:
        tallest = size[0] - 2 * MARGIN
        if not heights or not 3 <= min(heights) <= max(heights) <= tallest:
            raise ValueError(
                f"heights: found {tuple(heights)!r:.60}, expected numbers of pixels from 3 to "
                f"{tallest} for scenes of {size[0]} rows"
            )
        if most < 1 or not 0 <= clutter[0] <= clutter[1]:
            raise ValueError(
                f"most, clutter: found {most}, {clutter}, expected at least 1 digit, and the least "
                "and the greatest number of pieces"
            )
        self.digits, self.seed, self.part, self.size = digits, seed, part, size
        self.most, self.heights, self.overlap = most, tuple(heights), overlap
        self.clutter, self.noise, self.apart = clutter, noise, apart

    def __getitem__(self, number: int) -> Scene:
        rng = random_of(self.seed, self.part, number)
        image, mask = np.zeros(self.size, np.uint8), np.zeros(self.size, np.uint8)
        for _ in range(rng.integers(self.clutter[0], self.clutter[1] + 1)):
            draw = self._draw_fragment if rng.integers(2) else self._draw_stroke
            draw(image, rng)
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        for _ in range(rng.integers(1, self.most + 1)):
            chosen, box = self._place(boxes, rng)
            if box is not None:
                label = int(self.digits.targets[chosen])
                self._draw_digit(image, mask, chosen, label, box, int(rng.integers(140, 256)))
                boxes.append(box)
                labels.append(label)
        if self.noise:
            image = with_noise(image, self.noise, rng)
        corners = np.array(boxes, np.int64).reshape(-1, 4)
        return Scene(image[None], mask, corners, np.array(labels, np.int64))

    def _place(
        self, boxes: list[tuple[int, int, int, int]], rng: np.random.Generator
    ) -> tuple[int, tuple[int, int, int, int] | None]:
        """A digit and its box, or None for the box if none was free."""
        height, width = self.size
        for _ in range(TRIES):
            chosen = int(rng.integers(len(self.digits.inputs)))
            ink_height, ink_width = self._ink(chosen).shape
            h = self.heights[rng.integers(len(self.heights))]
            stretch = int(rng.integers(85, 116))
            w = max(3, (h * ink_width * stretch + 50 * ink_height) // (100 * ink_height))
            if w > width - 2 * MARGIN or 10 * w > 13 * h:
                continue
            y = int(rng.integers(MARGIN, height - h - MARGIN + 1))
            x = int(rng.integers(MARGIN, width - w - MARGIN + 1))
            box = x, y, x + w, y + h
            if all(self._may_stand(box, other) for other in boxes):
                return chosen, box
        return 0, None

    def _may_stand(self, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        common = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
        if self.apart:  # by half a box and more, and by much more in one direction
            across, down = (abs(a[i] + a[i + 2] - b[i] - b[i + 2]) for i in (0, 1))
            if min(common) > 0 or 2 * max(across, down) < 3 * min(across, down):
                return False
        if min(common) <= 0:
            return True
        smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
        return 100 * common[0] * common[1] <= self.overlap * smaller

    def _draw_digit(
        self, image: Array, mask: Array, chosen: int, label: int, box: tuple[int, ...], light: int
    ) -> None:
        x1, y1, x2, y2 = box
        pixels = resized(self._ink(chosen), (y2 - y1, x2 - x1))
        pixels = pixels * 255 // max(int(pixels.max()), 128)
        mask[y1:y2, x1:x2][pixels > INK_OF_MASK] = label + 1
        lay_over(image[y1:y2, x1:x2], pixels * light >> 8)

    def _draw_fragment(self, image: Array, rng: np.random.Generator) -> None:
        """A piece of a digit, 3 to 7 pixels wide and high."""
        ink = self._ink(int(rng.integers(len(self.digits.inputs))))
        h, w = rng.integers(3, 8, 2)
        y, x = (int(rng.integers(max(1, a - b))) for a, b in zip(ink.shape, (h, w), strict=True))
        piece = ink[y : y + h, x : x + w] * np.int32(rng.integers(100, 256)) >> 8
        top, left = (int(rng.integers(a - b)) for a, b in zip(self.size, piece.shape, strict=True))
        lay_over(image[top : top + piece.shape[0], left : left + piece.shape[1]], piece)

    def _draw_stroke(self, image: Array, rng: np.random.Generator) -> None:
        """A line of up to 24 pixels in each direction, bent by a parabola, two pixels wide."""
        t = np.arange(25)
        height, width = self.size
        start = rng.integers((0, 0), (width, height))
        end, bend = rng.integers(-24, 25, 2), rng.integers(-8, 9, 2)
        # (25, 2): start + t end + 4 t (1 - t) bend for t from 0 to 1
        points = start + (24 * np.outer(t, end) + np.outer(4 * t * (24 - t), bend)) // 576
        light = int(rng.integers(80, 230))
        for shift in (0, 1):
            x, y = points[:, 0] + shift, points[:, 1]
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            image[y[inside], x[inside]] = np.maximum(image[y[inside], x[inside]], light)

    def _ink(self, chosen: int) -> Array:
        """The smallest part of a digit's image that has all of its ink, in int32."""
        image = self.digits.inputs[chosen, 0]
        ink = image >= INK
        rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
        return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.int32)


def resized(image: Array, size: tuple[int, int]) -> Array:
    """Grey values int32 `(H, W)` in another size, by `base.resampling` in whole numbers."""
    of_rows, of_columns = (_weights(*pair) for pair in zip(image.shape, size, strict=True))
    return of_rows @ image @ of_columns.T >> 16


@cache
def _weights(old: int, new: int) -> Array:
    return np.rint(scaling(old, new) * ONE).astype(np.int32)


def lay_over(image: Array, pixels: Array) -> None:
    """Each pixel of the image becomes the brighter of the two."""
    np.maximum(image, pixels, out=image, casting="unsafe")


def with_noise(image: Array, deviation: int, rng: np.random.Generator) -> Array:
    """Grey values plus nearly normal noise: the sum of four random bytes for each pixel."""
    words = rng.bit_generator.random_raw((image.size + 1) // 2)
    sums = words.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int32)[: image.size]
    # Four bytes add up to 510 in the mean; their standard deviation is 147.8 = 256 / 1.732.
    noise = (sums.reshape(image.shape) - 510) * round(1.732 * deviation) >> 8
    return np.clip(image + noise, 0, 255).astype(np.uint8)
