"""Images made larger by interpolation (nearest or bilinear), as two small matrices."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.layer import Layer

MODES = ("nearest", "bilinear")


def interpolation(size: int, scale: int, mode: str, align_corners: bool = False) -> Array:
    """The matrix `(size * scale, size)` whose rows are the weights of each new pixel, in float64.

    Pixel u is at (u + 1/2) / scale - 1/2 of the old ones, as in PyTorch, OpenCV and ONNX
    ("half_pixel"); with `align_corners` at u (size - 1) / (size * scale - 1), so that the outermost
    pixels stay where they are. Beyond the outermost pixels their value goes on.
    """
    new = np.arange(size * scale)
    if mode == "nearest":
        return np.eye(size)[new // scale]
    if align_corners:
        places = new * ((size - 1) / max(1, new.size - 1))
    else:
        places = (new + 0.5) / scale - 0.5
    distances = np.abs(np.clip(places, 0, size - 1)[:, None] - np.arange(size))
    return np.maximum(1 - distances, 0)


class Upsample(Layer):
    """Images `(N, C, H, W)` to `(N, C, H scale, W scale)`: y = A x B^T with `interpolation`'s A, B.

    mode: "nearest" repeats pixels, "bilinear" interpolates. scale: a whole number, or two (rows,
    columns). A number that is not finite spreads over its row and its column.
    """

    kind = "upsample"

    def __init__(
        self,
        scale: int | tuple[int, int],
        *,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.scale = arguments.pair("Upsample", "scale", scale)
        if mode not in MODES:
            raise arguments.refusal("Upsample", "mode", mode, "one of " + ", ".join(MODES))
        self.mode, self.align_corners = mode, align_corners

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = self.shape = arguments.image_shape("Upsample", shape)
        self.of_rows, self.of_columns = (
            interpolation(size, scale, self.mode, self.align_corners).astype(self.dtype)
            for size, scale in zip((h, w), self.scale, strict=True)
        )
        self.output_shape = (c, len(self.of_rows), len(self.of_columns))
        return self.output_shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output((len(x), *self.output_shape), out)
        self._multiply(self.of_rows, self.of_columns, x, y)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        dx = self.input_gradient((len(dy), *self.shape), out)
        self._multiply(self.of_rows.T, self.of_columns.T, dy, dx)
        return dx

    def _multiply(self, of_rows: Array, of_columns: Array, x: Array, out: Array) -> None:
        """out = `of_rows` x `of_columns`^T for each image and channel."""
        n, c, h, w = x.shape
        new_h, new_w = len(of_rows), len(of_columns)
        sizes = (math.prod(x.shape), new_h * w * n * c, math.prod(out.shape))
        old, between, new = self.memory.scratch.take(*sizes, dtype=self.dtype)
        np.copyto(old.reshape(h, w, n, c), layout.native(x))
        np.matmul(of_rows, old.reshape(h, -1), out=between.reshape(new_h, -1))
        by_row = between.reshape(new_h, w, n * c)
        np.matmul(of_columns, by_row, out=new.reshape(new_h, new_w, n * c))
        np.copyto(layout.native(out), new.reshape(new_h, new_w, n, c))
