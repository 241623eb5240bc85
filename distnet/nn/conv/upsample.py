"""Images of another size by interpolation (nearest or bilinear), as two small matrices."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import grid_unit, portable, to_grid
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.base.resampling import scaling
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


class Resampling(Layer):
    """What layers share that interpolate: y = A x B^T for each image and channel.

    A number that is not finite spreads over its row and its column. In portable arithmetic A, B, x
    and what is between the two products are rounded to grids.
    """

    def _build(self, shape: Shape, of_rows: Array, of_columns: Array) -> Shape:
        """Takes A `(H', H)` and B `(W', W)` for images of `shape`."""
        self.shape = shape
        self.of_rows, self.of_columns = self._matrix(of_rows), self._matrix(of_columns)
        self.output_shape = (shape[0], len(of_rows), len(of_columns))
        self.arithmetic.check_terms(type(self).__name__, max(*of_rows.shape, *of_columns.shape))
        return self.output_shape

    def _matrix(self, weights: Array) -> Array:
        return self._rounded(weights, np.empty(weights.shape, self.dtype))

    def _rounded(self, x: Array, out: Array) -> Array:
        """`x` in `out`, as an operand of products; `out` may be `x`."""
        if self.arithmetic.rounds:
            return to_grid(x, grid_unit(x, self.arithmetic.bits), out)
        if out is not x:
            np.copyto(out, x)
        return out

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
        self._rounded(layout.native(x), old.reshape(h, w, n, c))
        np.matmul(of_rows, old.reshape(h, -1), out=between.reshape(new_h, -1))
        self._rounded(between, between)
        by_row = between.reshape(new_h, w, n * c)
        np.matmul(of_columns, by_row, out=new.reshape(new_h, new_w, n * c))
        np.copyto(layout.native(out), new.reshape(new_h, new_w, n, c))


@portable
class Upsample(Resampling):
    """Images `(N, C, H, W)` to `(N, C, H scale, W scale)`: y = A x B^T with `interpolation`'s A, B.

    mode: "nearest" repeats pixels, "bilinear" interpolates. scale: a whole number, or two (rows,
    columns).
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
        c, h, w = arguments.image_shape("Upsample", shape)
        matrices = (
            interpolation(size, scale, self.mode, self.align_corners)
            for size, scale in zip((h, w), self.scale, strict=True)
        )
        return self._build((c, h, w), *matrices)


@portable
class Resize(Resampling):
    """Images `(N, C, H, W)` to `(N, C, H', W')` of whatever size: y = A x B^T, see `scaling`.

    size: a number of rows and columns, or two. In front of a network that was made for images of
    another size.
    """

    kind = "resize"

    def __init__(self, size: int | tuple[int, int]) -> None:
        super().__init__()
        self.size = arguments.pair("Resize", "size", size)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = arguments.image_shape("Resize", shape)
        return self._build((c, h, w), scaling(h, self.size[0]), scaling(w, self.size[1]))
