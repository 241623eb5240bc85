"""Boxes of objects: overlap, suppression of doubles, and how one box is told from another (8.4.1).

A box is x1, y1, x2, y2 in pixels, the second corner outside, so that its area is the product of two
differences. All functions are of one image, and what they choose depends on nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array

MAX_LOG_SIZE = 2.0  # a box is decoded to be at most e^2 times as wide or high


class Detections(NamedTuple):
    """What was found in an image, best first: boxes `(M, 4)`, scores and classes `(M,)`."""

    boxes: Array
    scores: Array
    labels: Array


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of boxes `(M, 4)` and `(N, 4)`, each with each, `(M, N)`."""
    a, b = _wide(a), _wide(b)
    upper = np.minimum(a[:, None, 2:], b[None, :, 2:])
    lower = np.maximum(a[:, None, :2], b[None, :, :2])
    common = np.maximum(upper - lower, 0).prod(axis=2)
    areas = [np.maximum(each[:, 2:] - each[:, :2], 0).prod(axis=1) for each in (a, b)]
    union = areas[0][:, None] + areas[1][None] - common
    return common / np.maximum(union, np.finfo(np.float32).tiny)


def nms(boxes: Array, scores: Array, threshold: float, most: int | None = None) -> Array:
    """The indices of the boxes that are left, best score first: non-maximum suppression.

    The best box stays, and all that overlap with it by more than `threshold` (IoU) go; then the
    best of the rest, and so on, `most` times at most. Of equal scores the first box is better.
    """
    order = np.argsort(-_wide(scores), kind="stable")
    suppresses = iou(boxes[order], boxes[order]) > threshold
    gone = np.zeros(len(order), bool)
    kept = []
    for i in range(len(order)):
        if gone[i]:
            continue
        kept.append(order[i])
        gone |= suppresses[i]
        if len(kept) == most:
            break
    return np.array(kept, np.int64)


def encoded(boxes: Array, references: Array, arithmetic: Arithmetic = FLOAT) -> Array:
    """How boxes lie to references, `(M, 4)` each: shift in parts of the size, logarithm of scale.

    (x - x_r) / w_r, (y - y_r) / h_r, log w / w_r, log h / h_r of the middles and sizes (Girshick et
    al. 2013, arXiv:1311.2524, appendix C). `decoded` is the way back.
    """
    boxes, references = _wide(boxes), _wide(references)
    size, reference_size = boxes[:, 2:] - boxes[:, :2], references[:, 2:] - references[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - references[:, :2] - references[:, 2:]) / 2
    scale = arithmetic.log(size / reference_size)
    return np.concatenate([shift / reference_size, scale], axis=1)


def decoded(offsets: Array, references: Array, arithmetic: Arithmetic = FLOAT) -> Array:
    """The boxes `(M, 4)` that lie so to the references; sizes grow e^2 times at most."""
    references = _wide(references)
    size = references[:, 2:] - references[:, :2]
    middle = (references[:, :2] + references[:, 2:]) / 2 + offsets[:, :2] * size
    scale = arithmetic.exp(np.clip(offsets[:, 2:], -MAX_LOG_SIZE, MAX_LOG_SIZE))
    half = size * scale / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def clipped(boxes: Array, height: int, width: int) -> Array:
    """The parts of the boxes that are inside of an image."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))


def anchors(sizes: list[tuple[int, int]], rows: int, columns: int, stride: int) -> Array:
    """Boxes of those sizes (width, height) about the middle of each cell of a grid.

    `(rows * columns * len(sizes), 4)` float32, in the order of rows, columns, sizes (Ren et al.
    2015, arXiv:1506.01497, section 3.1.1). A cell is `stride` pixels wide and high.
    """
    y, x = (np.arange(count) * stride + stride / 2 for count in (rows, columns))
    middles = np.stack(np.broadcast_arrays(x[None, :, None], y[:, None, None]), axis=3)
    half = np.array(sizes) / 2  # (A, 2)
    corners = np.concatenate([middles - half, middles + half], axis=3)
    return corners.reshape(-1, 4).astype(np.float32)


def _wide(numbers: Array) -> Array:
    """In a type that has their differences and sums, too: bytes have neither."""
    return numbers.astype(np.int64) if numbers.dtype.kind in "iu" else numbers
