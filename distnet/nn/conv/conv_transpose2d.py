"""Transposed convolution: what a convolution does backward to its input, as a layer (book 8.4.2).

Its forward pass is a convolution's dx, its dx is the convolution, and its dW is the convolution's
with the roles of input and output exchanged (Dumoulin & Visin 2016, arXiv:1603.07285, chapter 4).
Each element of the kernel is one matrix product, and a sum into every `stride`-th pixel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import grid_unit, portable, to_grid
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.initializers import bilinear, checked_init, constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter

Pair = int | tuple[int, int]


@portable
class ConvTranspose2d(Layer):
    """Images `(N, C, H, W)` to `(N, F, OH, OW)`, OH = (H - 1) stride - 2 pad + KH + output_padding.

    Weight `(C, F, KH, KW)`, bias `(F,)`, as in PyTorch: pixel (h, w) of channel c is added, times
    weight[c, f], to the KH x KW pixels of each channel f that begin at (h, w) * stride - pad.
    `output_padding`, less than the stride, adds rows and columns at the lower and right edge, to
    choose among the sizes that a convolution of this stride would make equal.

    `init="bilinear"` begins as bilinear interpolation of each channel by itself, with kernel 2 s,
    stride s and pad s / 2 (Long et al. 2014, arXiv:1411.4038, section 3.3).
    """

    kind = "convtranspose"

    def __init__(
        self,
        filters: int,
        kernel: Pair,
        *,
        stride: Pair = 1,
        pad: Pair = 0,
        output_padding: Pair = 0,
        bias: bool = True,
        init: str | float = "he",
    ) -> None:
        super().__init__()
        owner = "ConvTranspose2d"
        self.filters = arguments.whole(owner, "filters", filters)
        self.kernel = arguments.pair(owner, "kernel", kernel)
        self.stride = arguments.pair(owner, "stride", stride)
        self.pad = arguments.pair(owner, "pad", pad, minimum=0)
        self.output_padding = arguments.pair(owner, "output_padding", output_padding, minimum=0)
        if any(extra >= s for extra, s in zip(self.output_padding, self.stride, strict=True)):
            expected = f"less than the stride, {stride}"
            raise arguments.refusal(owner, "output_padding", output_padding, expected)
        self.init = init if init == "bilinear" else checked_init(owner, init)
        self.has_bias = bias

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        c, h, w = self.shape = arguments.image_shape("ConvTranspose2d", shape)
        (kh, kw), (sh, sw), f = self.kernel, self.stride, self.filters
        self.padded_size = (
            (h - 1) * sh + kh + self.output_padding[0],
            (w - 1) * sw + kw + self.output_padding[1],
        )
        oh, ow = (size - 2 * p for size, p in zip(self.padded_size, self.pad, strict=True))
        if min(oh, ow) < 1:
            raise arguments.refusal("ConvTranspose2d", "pad", self.pad, "that some pixels are left")
        # So many products are added up in each pixel, at least at kernels that the stride divides.
        fan_in = max(1, c * kh * kw // (sh * sw))
        init = bilinear if self.init == "bilinear" else weight_initializer(self.init, fan_in)
        self.weight = Parameter((c, f, kh, kw), init)
        self.bias = Parameter((f,), constant(0), decays=False)
        self.output_shape = (f, oh, ow)
        return self.output_shape

    @property
    def multiply_adds(self) -> int:
        return self.weight.size * self.shape[1] * self.shape[2]

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.has_bias:
            yield "bias", self.bias

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        n, (_, h, w), f = len(x), self.shape, self.filters
        self.rows = self._rows(x)  # (H * W * N, C)
        padded_shape = (n, f, *self.padded_size)
        weights, product, flat = self.memory.scratch.take(
            self.weight.size, len(self.rows) * f, math.prod(padded_shape), dtype=self.dtype
        )
        weights, product = self._by_element(weights), product.reshape(h, w, n, f)
        padded = layout.shaped(flat, padded_shape)
        # Where products are exact, so is their sum: the bias is added last.
        bias = self.bias.value[:, None, None] if self.has_bias else 0.0
        padded[...] = 0 if self.arithmetic.rounds else bias
        for weight, pixels in zip(weights, self._elements(padded), strict=True):
            np.matmul(self.rows, weight, out=product.reshape(-1, f))
            pixels += product
        y = self.output((n, *self.output_shape), out)
        if self.arithmetic.rounds:
            return np.add(self._inside(padded), bias, out=y)
        np.copyto(y, self._inside(padded))
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        n, (c, h, w), f = len(dy), self.shape, self.filters
        dy = self.operand(dy)
        padded_shape, num_rows = (n, f, *self.padded_size), len(self.rows)
        sizes = self.weight.size, self.weight.size, num_rows * f, num_rows * c, num_rows * c
        weights, dweights, dwindow, drows, part, flat = self.memory.scratch.take(
            *sizes, math.prod(padded_shape), dtype=self.dtype
        )
        weights, dweights = self._by_element(weights), dweights.reshape(-1, c, f)
        dwindow, drows, part = (a.reshape(num_rows, -1) for a in (dwindow, drows, part))
        dpadded = layout.shaped(flat, padded_shape)
        dpadded[...] = 0
        np.copyto(self._inside(dpadded), dy)
        drows[...] = 0
        for i, pixels in enumerate(self._elements(dpadded)):
            np.copyto(dwindow.reshape(h, w, n, f), pixels)
            np.matmul(self.rows.T, dwindow, out=dweights[i])
            if need_dx:
                np.matmul(dwindow, weights[i].T, out=part)
                drows += part
        np.copyto(self.weight.grad, dweights.reshape(*self.kernel, c, f).transpose(2, 3, 0, 1))
        if self.has_bias:
            np.add.reduce(dy, axis=(0, 2, 3), out=self.bias.grad)
        if not need_dx:
            return None
        dx = self.input_gradient((n, c, h, w), out)
        np.copyto(layout.native(dx), drows.reshape(h, w, n, c))
        return dx

    def _rows(self, x: Array) -> Array:
        """The pixels of all images as rows (H * W * N, C): where they lie if they lie so."""
        if self.arithmetic.rounds:
            most = max(len(x) * self.shape[1] * self.shape[2], self.weight.size)
            self.arithmetic.check_terms("ConvTranspose2d", most)
        x = self.operand(x, kept_as="x")
        pixels = layout.native(x)
        if not pixels.flags.c_contiguous:
            pixels = layout.native(self.memory.array("rows", x.shape, self.dtype))
            np.copyto(pixels, layout.native(x))
        return pixels.reshape(-1, x.shape[1])

    def _by_element(self, flat: Array) -> Array:
        """The weight as one matrix for each element of the kernel, (KH * KW, C, F)."""
        c, f, kh, kw = self.weight.shape
        by_element, weight = flat.reshape(kh, kw, c, f), self.weight.value.transpose(2, 3, 0, 1)
        if self.arithmetic.rounds:
            to_grid(weight, grid_unit(weight, self.arithmetic.bits), by_element)
        else:
            np.copyto(by_element, weight)
        return flat.reshape(-1, c, f)

    def _elements(self, padded: Array) -> Iterator[Array]:
        """For each element of the kernel the pixels (H, W, N, F) that it reaches."""
        (_, h, w), (sh, sw), (kh, kw) = self.shape, self.stride, self.kernel
        pixels = layout.native(padded)
        for i, j in np.ndindex(kh, kw):
            yield pixels[i : i + sh * h : sh, j : j + sw * w : sw]

    def _inside(self, padded: Array) -> Array:
        (top, left), (_, oh, ow) = self.pad, self.output_shape
        return padded[:, :, top : top + oh, left : left + ow]
