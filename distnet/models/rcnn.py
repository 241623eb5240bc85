"""R-CNN: regions of a scene that may hold something, and a network that looks at each (8.4.1).

Girshick et al. 2013, arXiv:1311.2524, in small. Where their regions come from selective search,
these are connected pieces of ink at several thresholds, pairs that nearly touch, and windows in
which there is enough ink. Each is cut out, scaled to 28 x 28 pixels and goes through the whole
network by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape
from distnet.base.errors import DataError
from distnet.models.faster_rcnn import decide, padded
from distnet.nn import Conv2d, Linear, MaxPool2d, Network, ReLU, arguments
from distnet.nn.boxes import Detections, nms
from distnet.nn.roi_align import RoIAlign

SIZE = 28  # pixels of a region when the network sees it
CONTEXT = 0.15  # of its size, that is seen of what is around it
THRESHOLDS = (51, 76, 107, 140)  # grey values from which on a pixel is ink
GAP = 2  # pixels between two pieces of one digit
HEIGHTS, WIDTHS = (8, 40), (2, 44)  # of regions, in pixels
SAME = 0.9  # regions that overlap so much are one
WINDOWS = ((8, 13), (13, 17), (16, 23), (22, 30))  # width, height
WINDOW_INK = 0.12  # the part of a window that has to be ink


class RCNN:
    """A classifier of regions, 216,815 parameters for ten classes of digits.

    Its regions are made for light digits on black that are 8 to 40 pixels high and 2 to 44 wide:
    what is larger, smaller or dark is in none of them. `FasterRCNN` learns where to look.

    network: regions `(M, 1, 28, 28)` to scores of the background and all classes and four offsets,
    `(M, 1 + K + 4)`. parameters: those of the network.
    """

    def __init__(
        self,
        input_shape: Shape = (1, 64, 84),
        num_classes: int = 10,
        *,
        filters: tuple[int, int] = (16, 32),
        hidden: int = 128,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
        arithmetic: str | Arithmetic = FLOAT,
    ) -> None:
        if arguments.image_shape("RCNN", input_shape)[0] != 1:
            raise arguments.refusal("RCNN", "input_shape", input_shape, "grey scenes, (1, H, W)")
        num_classes = arguments.whole("RCNN", "num_classes", num_classes)
        first, second = filters
        layers = [
            *(Conv2d(first, 3, pad=1), MaxPool2d(2), ReLU()),
            *(Conv2d(second, 3, pad=1), MaxPool2d(2), ReLU()),
            *(Conv2d(second, 3, pad=1), ReLU()),
            *(Linear(hidden), ReLU(), Linear(1 + num_classes + 4, init=0.01)),
        ]
        self.input_shape, self.num_classes = input_shape, num_classes
        self.network = Network(
            layers, (1, SIZE, SIZE), seed=seed, dtype=dtype, arithmetic=arithmetic
        )
        self.parameters = self.network.parameters
        self.align = RoIAlign(SIZE, 1, self.network.arithmetic)

    @property
    def networks(self) -> dict[str, Network]:
        """What it is made of, by name."""
        return {"network": self.network}

    def as_input(self, images: Array) -> Array:
        """Bytes `(N, 1, H, W)` as numbers from 0 to 1."""
        self.check(images)
        return np.multiply(images, 1 / 255, dtype=self.network.dtype)

    def check(self, images: Array) -> None:
        """Raises DataError unless they are scenes in whose grey values regions can be found."""
        if images.shape[1:] != self.input_shape or images.dtype != np.uint8:
            found, expected = images.shape, ", ".join(map(str, self.input_shape))
            raise DataError(f"RCNN: found {images.dtype} {found}, expected bytes (N, {expected})")

    def cut(self, x: Array, boxes: Array) -> Array:
        """The regions `(N, R, 4)` of scenes x `(N, 1, H, W)` as images `(N * R, 1, 28, 28)`."""
        rim = (boxes[..., 2:] - boxes[..., :2]) * (CONTEXT / 2) + 0.5
        wider = np.concatenate([boxes[..., :2] - rim, boxes[..., 2:] + rim], axis=-1)
        return self.align.forward(x, wider).reshape(-1, 1, SIZE, SIZE)

    def detect(self, images: Array) -> tuple[list[Detections], list[Array]]:
        """What is in each of the scenes `(N, 1, H, W)`, and which regions were looked at."""
        self.check(images)
        _, height, width = self.input_shape
        proposed = [region_proposals(image[0]) for image in images]
        found = []
        for image, regions in zip(images, proposed, strict=True):
            cut = self.cut(self.as_input(image[None]), padded([regions], len(regions)))
            told = (
                self.network.predict(cut) if len(cut) else np.zeros((0, 1 + self.num_classes + 4))
            )
            found.append(decide(regions, told, height, width, self.network.arithmetic))
        return found, proposed


def region_proposals(image: Array) -> Array:
    """Boxes `(M, 4)` float32 that may hold something, of grey values `(H, W)` in bytes."""
    grey = smoothed(image)
    boxes = [np.zeros((0, 4), int)]
    for threshold in THRESHOLDS:
        pieces = components(grey > threshold)
        sizes = pieces[:, 2:] - pieces[:, :2]
        pieces = pieces[(sizes >= 4).any(axis=1)]
        boxes += [pieces, pairs(pieces)]
    regions = np.concatenate(boxes).astype(np.float32)
    width, height = (regions[:, 2:] - regions[:, :2]).T
    fits = (height >= HEIGHTS[0]) & (height <= HEIGHTS[1])
    fits &= (width >= WIDTHS[0]) & (width <= WIDTHS[1])
    regions = regions[fits]
    first_come = -np.arange(len(regions))
    regions = regions[nms(regions, first_come, SAME)]
    return np.concatenate([regions, windows_with_ink(grey > THRESHOLDS[1])])


def smoothed(image: Array) -> Array:
    """Each pixel with its neighbours, by (1, 2, 1) / 4 in both directions; int32."""
    grey = np.pad(image.astype(np.int32), 1, mode="edge")
    rows = grey[:-2] + 2 * grey[1:-1] + grey[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) >> 4


def components(mask: Array) -> Array:
    """The boxes `(M, 4)` of the connected pieces of a mask `(H, W)`, diagonals connect too.

    Row by row, every run of true pixels joins the pieces of the runs above that it touches.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    stops = np.nonzero(edges == -1)[1]
    boxes: list[list[int]] = []  # of each piece; one that has joined another is empty
    above: list[tuple[int, int, int]] = []  # the runs of the row above: start, stop, piece
    here: list[tuple[int, int, int]] = []
    joined: list[int] = []  # which piece a piece has joined

    def piece_of(number: int) -> int:
        while joined[number] != number:
            number = joined[number]
        return number

    last = -1
    for y, start, stop in zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True):
        if y != last:
            above, here = (here if y == last + 1 else []), []
            last = y
        number = len(boxes)
        boxes.append([start, y, stop, y + 1])
        joined.append(number)
        for other_start, other_stop, other in above:
            if other_start <= stop and start <= other_stop:
                first, second = sorted((piece_of(other), piece_of(number)))
                if first != second:
                    a, b = boxes[first], boxes[second]
                    boxes[first] = [*map(min, a[:2], b[:2]), *map(max, a[2:], b[2:])]
                    joined[second] = first
        here.append((start, stop, number))
    whole = [box for number, box in enumerate(boxes) if joined[number] == number]
    return np.array(whole, int).reshape(-1, 4)


def pairs(boxes: Array) -> Array:
    """The boxes around each two that are at most `GAP` pixels apart."""
    lower = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    upper = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    near = (lower - upper <= GAP).all(axis=2)
    first, second = np.nonzero(np.triu(near, 1))
    a, b = boxes[first], boxes[second]
    return np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1)


def windows_with_ink(ink: Array) -> Array:
    """Windows of `WINDOWS` on a grid, where there is enough ink, `(M, 4)` float32."""
    height, width = ink.shape
    sums = np.zeros((height + 1, width + 1), np.int64)  # of all ink above and to the left
    sums[1:, 1:] = ink.cumsum(axis=0).cumsum(axis=1)
    found = []
    for w, h in WINDOWS:
        y = np.arange(0, height - h + 1, max(3, h // 4))[:, None]
        x = np.arange(0, width - w + 1, max(3, w // 3))[None]
        count = sums[y + h, x + w] - sums[y, x + w] - sums[y + h, x] + sums[y, x]
        rows, columns = np.nonzero(count > WINDOW_INK * w * h)
        top, left = y[rows, 0], x[0, columns]
        found.append(np.stack([left, top, left + w, top + h], axis=1))
    return np.concatenate(found).astype(np.float32)
