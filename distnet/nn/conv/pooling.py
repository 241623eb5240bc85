"""Max pooling (book section 7.3), and where the windows of any pooling lie.

Of equal elements in a window the first in row order receives the gradient. A window with a NaN has
the maximum NaN, and its last NaN receives the gradient, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape, ceil_divide
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.layer import Layer

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """The windows of a pooling on images of `size` pixels; every pair is (rows, columns).

    Windows of `kernel` pixels are `stride` apart. The first one begins `pad` pixels outside of the
    image. The last one ends at most `pad` pixels outside, or with `ceil_mode` begins at most in
    the last pixel of the image, however far it ends beyond the padding.
    """

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, int]
    ceil_mode: bool = False

    @property
    def counts(self) -> tuple[int, int]:
        """(OH, OW): how many windows there are."""
        return self._count(0), self._count(1)

    @property
    def has_margin(self) -> bool:
        """Whether a padded image is more than the image."""
        return self.padded_size != self.size

    @property
    def padded_size(self) -> tuple[int, int]:
        """The pixels of an image with all that some window may reach of what is around it."""
        return self._padded(0), self._padded(1)

    def inside(self, padded: Array) -> Array:
        """The images `(N, C, H, W)` in an array of padded ones."""
        (h, w), (top, left) = self.size, self.pad
        return padded[:, :, top : top + h, left : left + w]

    def elements(self, padded: Array) -> list[Array]:
        """For each pixel of a window, in row order, that pixel of all windows: (N, C, OH, OW)."""
        (oh, ow), (sh, sw), (kh, kw) = self.counts, self.stride, self.kernel
        return [
            padded[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw]
            for i in range(kh)
            for j in range(kw)
        ]

    def bounds(self, axis: int, *, of_image: bool) -> Array:
        """(2, O): the first pixel of each window and the one after its last, counted in the window.

        Pixels that are outside of the padded image do not count, nor does the padding `of_image`.
        """
        starts = np.arange(self.counts[axis]) * self.stride[axis]
        first = self.pad[axis] if of_image else 0
        stop = self.size[axis] + self.pad[axis] + (0 if of_image else self.pad[axis])
        return np.clip([first - starts, stop - starts], 0, self.kernel[axis])

    def _count(self, axis: int) -> int:
        size, kernel, stride = self.size[axis], self.kernel[axis], self.stride[axis]
        room = size + 2 * self.pad[axis] - kernel
        if not self.ceil_mode:
            return room // stride + 1
        count = ceil_divide(room, stride) + 1
        return count if (count - 1) * stride < size + self.pad[axis] else count - 1

    def _padded(self, axis: int) -> int:
        reached = (self.counts[axis] - 1) * self.stride[axis] + self.kernel[axis]
        return max(self.size[axis] + 2 * self.pad[axis], reached)


class Pooling(Layer):
    """What all poolings by windows share: their arguments, shapes, and arrays around the images."""

    def __init__(
        self, kernel: Pair, *, stride: Pair | None = None, pad: Pair = 0, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        self.kernel = arguments.pair(owner, "kernel", kernel)
        self.stride = self.kernel if stride is None else arguments.pair(owner, "stride", stride)
        self.pad = arguments.pair(owner, "pad", pad, minimum=0)
        self.ceil_mode = ceil_mode
        if self.pad[0] >= self.kernel[0] or self.pad[1] >= self.kernel[1]:
            raise arguments.refusal(owner, "pad", pad, f"less than the kernel, {kernel}")

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = self.shape = arguments.image_shape(type(self).__name__, shape)
        self.windows = Windows((h, w), self.kernel, self.stride, self.pad, self.ceil_mode)
        if min(self.windows.counts) < 1:
            raise ValueError(
                f"{type(self).__name__}: a kernel of {self.kernel[0]} x {self.kernel[1]} does not "
                f"fit into {h} x {w} pixels with padding {self.pad}; use a smaller kernel, larger "
                "images or more padding"
            )
        self.output_shape = (c, *self.windows.counts)
        return self.output_shape

    def elements(self, x: Array, padded: Array, margin: float) -> list[Array]:
        """The elements of all windows on images; what is around these, if anything, is `margin`.

        `padded`: where they are copied to, with that margin.
        """
        if not self.windows.has_margin:
            return self.windows.elements(x)
        (h, w), (top, left) = self.windows.size, self.windows.pad
        padded[:, :, :top] = padded[:, :, top + h :] = margin
        padded[..., :left] = padded[..., left + w :] = margin
        np.copyto(self.windows.inside(padded), x)
        return self.windows.elements(padded)

    def padded_gradient(self, n: int) -> Array:
        """Zeros, to which the gradients of the elements of all windows are added."""
        dpadded = self.memory.gradient(self.padded_shape(n), self.dtype)
        dpadded[...] = 0
        return dpadded

    def given(self, dx: Array, out: Array | None) -> Array:
        """`dx`, in `out` if the caller has asked for it there."""
        if out is None:
            return dx
        np.copyto(out, dx)
        return out

    def padded_shape(self, n: int) -> Shape:
        """The shape of images with all around them that some window may reach."""
        return (n, self.shape[0], *self.windows.padded_size)


@portable
class MaxPool2d(Pooling):
    """The maximum of each window: images `(N, C, H, W)` to `(N, C, OH, OW)`.

    Windows of `kernel` pixels lie `stride` (default: `kernel`) apart: OH = (H + 2 pad - KH) //
    stride + 1, rounded up instead of down in `ceil_mode` if that window begins inside the image.
    `kernel`, `stride` and `pad` are numbers or pairs (rows, columns). Padding never wins, not even
    where a window holds nothing but minus infinity.
    """

    kind = "pool"
    is_undone = False  # whether a MaxUnpool2d asks where the maxima were

    def join(self, before: Sequence[Layer]) -> None:
        self.is_undone = False

    @property
    def halves(self) -> bool:
        """Whether the windows are 2 x 2 and tile the images, but perhaps for an odd last line."""
        return (self.kernel, self.stride, self.pad) == ((2, 2), (2, 2), (0, 0)) and (
            not self.ceil_mode
        )

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output((len(x), *self.output_shape), out)
        self._method(len(x)).forward(x, y)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        return self._method(len(dy)).backward(dy, out)

    def give_to_maxima(self, values: Array, out: Array) -> None:
        """Each value `(N, C, OH, OW)` to the maximum of its window in the last forward pass.

        out: `(N, C, H, W)`, of which all other pixels become zero.
        """
        self._method(len(values)).give_to_maxima(values, out)

    def take_at_maxima(self, images: Array, out: Array) -> None:
        """From `(N, C, H, W)` the pixels that were the maxima, `(N, C, OH, OW)`, into `out`."""
        self._method(len(images)).take_at_maxima(images, out)

    def _method(self, n: int) -> _AnyWindows | _Pairs:
        _, h, w = self.shape
        pairs = self.halves and (h % 2, w % 2) == (0, 0)
        return self.memory.once(n, "method", lambda: (_Pairs if pairs else _AnyWindows)(self, n))


class _AnyWindows:
    """Any kernel, stride and padding: one element of all windows at a time."""

    def __init__(self, layer: MaxPool2d, n: int) -> None:
        self.layer = layer
        kh, kw = layer.kernel
        self.chosen = layout.empty((n, *layer.output_shape), np.min_scalar_type(kh * kw))
        (rows, _), (columns, _) = (layer.windows.bounds(axis, of_image=True) for axis in (0, 1))
        # (OH, OW): the first element of each window that is a pixel of the image.
        self.first = (rows[:, None] * kw + columns).astype(self.chosen.dtype)

    def forward(self, x: Array, y: Array) -> None:
        padded, mask, number = self._temporaries(len(x), bool, self.chosen.dtype)
        elements = self.layer.elements(x, padded, -np.inf)
        np.copyto(y, elements[0])
        np.copyto(self.chosen, self.first)
        is_larger = mask.view(np.uint8)
        for k, element in enumerate(elements[1:], start=1):
            np.greater(element, y, out=mask)
            # The number k where it is larger, else 0. Numbers grow, so the last one is the largest.
            np.multiply(is_larger, self.chosen.dtype.type(k), out=number)
            np.maximum(self.chosen, number, out=self.chosen)
            np.maximum(element, y, out=y)
        if holds_nan(y):
            for k, element in enumerate(elements):
                np.copyto(self.chosen, k, where=np.isnan(element, out=mask))

    def backward(self, dy: Array, out: Array | None) -> Array:
        dpadded = self.layer.padded_gradient(len(dy))
        self._add(dy, dpadded, self.layer.memory.temporary(dy.shape, self.layer.dtype))
        return self.layer.given(self.layer.windows.inside(dpadded), out)

    def give_to_maxima(self, values: Array, out: Array) -> None:
        padded, routed = self._temporaries(len(values), self.layer.dtype)
        padded[...] = 0
        self._add(values, padded, routed)
        np.copyto(out, self.layer.windows.inside(padded))

    def take_at_maxima(self, images: Array, out: Array) -> None:
        padded, mask = self._temporaries(len(images), bool)
        for k, element in enumerate(self.layer.elements(images, padded, 0)):
            np.copyto(out, element, where=np.equal(self.chosen, k, out=mask))

    def _add(self, values: Array, padded: Array, routed: Array) -> None:
        """Adds each value to the maximum of its window in `padded`; `routed` is for the way."""
        for k, element in enumerate(self.layer.windows.elements(padded)):
            np.equal(self.chosen, k, out=routed)  # 1 where this element is the one, else 0
            np.multiply(values, routed, out=routed)
            element += routed

    def _temporaries(self, n: int, *of_windows: DTypeLike) -> list[Array]:
        """For padded images, and arrays of a number for each window."""
        padded = self.layer.padded_shape(n), self.layer.dtype
        return self.layer.memory.temporaries(
            padded, *((self.chosen.shape, dtype) for dtype in of_windows)
        )


class _Pairs:
    """2 x 2 windows that tile the image: the larger of two columns, then of two rows.

    The gradient goes back the same way: to the second of a pair where that was strictly larger,
    and what is left of it, all or nothing, to the first.
    """

    def __init__(self, layer: MaxPool2d, n: int) -> None:
        self.layer = layer
        c, h, w = layer.shape
        self.second_column = layout.empty((n, c, h, w // 2), bool)
        self.second_row = layout.empty((n, c, h // 2, w // 2), bool)

    def forward(self, x: Array, y: Array) -> None:
        left, right = x[..., 0::2], x[..., 1::2]
        columns = self._columns()
        take_larger(left, right, columns, self.second_column)
        upper, lower = columns[:, :, 0::2], columns[:, :, 1::2]
        take_larger(upper, lower, y, self.second_row)
        if holds_nan(y):
            self.second_column |= np.isnan(right)
            self.second_row |= np.isnan(lower)

    def backward(self, dy: Array, out: Array | None) -> Array:
        dx = self.layer.input_gradient((len(dy), *self.layer.shape), out)
        self.give_to_maxima(dy, dx)
        return dx

    def give_to_maxima(self, values: Array, out: Array) -> None:
        columns = self._columns()
        upper, lower = columns[:, :, 0::2], columns[:, :, 1::2]
        give_to_larger(values, self.second_row, upper, lower)
        left, right = out[..., 0::2], out[..., 1::2]
        give_to_larger(columns, self.second_column, left, right)

    def take_at_maxima(self, images: Array, out: Array) -> None:
        columns = self._columns()
        np.copyto(columns, images[..., 0::2])
        np.copyto(columns, images[..., 1::2], where=self.second_column)
        np.copyto(out, columns[:, :, 0::2])
        np.copyto(out, columns[:, :, 1::2], where=self.second_row)

    def _columns(self) -> Array:
        """The larger of two columns each, or its gradient: (N, C, H, W / 2)."""
        return self.layer.memory.temporary(self.second_column.shape, self.layer.dtype)


def take_larger(first: Array, second: Array, out: Array, second_wins: Array) -> None:
    """The larger of each pair, and whether it is the second, strictly."""
    np.greater(second, first, out=second_wins)
    np.maximum(first, second, out=out)


def give_to_larger(gradient: Array, second_wins: Array, first: Array, second: Array) -> None:
    """The way back of `take_larger`: all of the gradient to one of the pair, zero to the other."""
    np.multiply(gradient, second_wins, out=second)
    np.subtract(gradient, second, out=first)


def holds_nan(x: Array) -> bool:
    """Whether any element is NaN, found in one pass over `x`."""
    return bool(np.isnan(np.max(x, initial=-np.inf)))
