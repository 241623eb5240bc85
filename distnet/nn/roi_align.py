"""RoI align: the features inside a box as a grid of fixed size, by two small matrices (8.4.1).

He et al. 2017, "Mask R-CNN" (arXiv:1703.06870), section 3, without quantisation of the box. A bin
reads the features by the triangles of bilinear interpolation about its middle, widened where it
spans more than a cell, so that nothing is overlooked. Both directions are separate: with A_y (P, H)
and A_x (P, W) of a box, whose rows add up to 1,

    pooled = A_y F A_x^T        and backward        dF = A_y^T dpooled A_x

for each channel: two products, no scattering, no argmax, so that bits do not depend on an order.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, rounded
from distnet.base.arrays import Array
from distnet.nn import layout


def bins(
    low: Array,
    high: Array,
    count: int,
    cells: int,
    stride: float,
    arithmetic: Arithmetic = FLOAT,
) -> Array:
    """The matrices `(R, count, cells)` float32 that cut the intervals low to high into bins.

    low, high: `(R,)` in pixels; a cell is `stride` pixels long. A bin whose middle is outside reads
    the outermost cell.
    """
    length = (high - low) / count
    middles = low[:, None] + (np.arange(count) + 0.5) * length[:, None]  # (R, count)
    places = np.clip(middles / stride - 0.5, 0, cells - 1)
    reach = np.maximum(length / stride, 1)[:, None, None]
    weights = np.maximum(0, 1 - np.abs(np.arange(cells) - places[:, :, None]) / reach)
    sums = arithmetic.sum(weights, axis=2, keepdims=True)
    return (weights / sums).astype(np.float32)


class RoIAlign:
    """Features `(N, C, H, W)` and boxes `(N, R, 4)` in pixels to `(N * R, P * P * C)`.

    Rows of the result are in the order of images and boxes, each the grid of P x P bins with the
    channels innermost. A cell of the features is `stride` pixels wide and high. There is no
    gradient with respect to the boxes (Ren et al. 2015, section 3.2, "approximate").
    arithmetic: that of the network whose features they are.
    """

    def __init__(self, size: int, stride: float, arithmetic: Arithmetic = FLOAT) -> None:
        self.size, self.stride, self.arithmetic = size, stride, arithmetic

    def forward(self, features: Array, boxes: Array) -> Array:
        n, c, h, w = self.shape = features.shape
        r, p = boxes.shape[1], self.size
        flat = boxes.reshape(-1, 4).astype(np.float64)
        # Sums over the rows of an image, over its columns, and over all bins on the way back.
        self.arithmetic.check_terms("RoIAlign", max(h, w, r * p))
        dtype, how = features.dtype, (self.stride, self.arithmetic)
        # (N, R * P, H) and (N, R, 1, P, W)
        of_rows = bins(flat[:, 1], flat[:, 3], p, h, *how).reshape(n, r * p, h)
        of_columns = bins(flat[:, 0], flat[:, 2], p, w, *how).reshape(n, r, 1, p, w)
        self.of_rows, self.of_columns = (
            rounded(each.astype(dtype, copy=False), self.arithmetic)
            for each in (of_rows, of_columns)
        )
        images = rounded(features.transpose(0, 2, 3, 1).reshape(n, h, w * c), self.arithmetic)
        lines = rounded(self.of_rows @ images, self.arithmetic).reshape(n, r, p, w, c)
        return (self.of_columns @ lines).reshape(n * r, p * p * c)

    def backward(self, dy: Array) -> Array:
        """The gradient of the features, `(N, C, H, W)`, from that of the result."""
        (n, c, h, w), p = self.shape, self.size
        r = self.of_columns.shape[1]
        dy = rounded(dy.reshape(n, r, p, p, c), self.arithmetic)
        dlines = rounded(self.of_columns.swapaxes(3, 4) @ dy, self.arithmetic)  # (N, R, P, W, C)
        dimages = self.of_rows.swapaxes(1, 2) @ dlines.reshape(n, r * p, w * c)  # (N, H, W * C)
        dx = layout.empty(self.shape, dy.dtype)
        np.copyto(dx, dimages.reshape(n, h, w, c).transpose(0, 3, 1, 2))
        return dx
