"""Convolution as one matrix product, by unrolling windows into rows (book section 7.4).

The plain reference: what `Conv2d` computes, written to be read. The fast algorithms are tested
against it. All arrays have the logical shape of the book; N images of C channels and H x W pixels,
windows of KH x KW pixels, output OH x OW.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import DTypeLike

from distnet.base.arrays import Array
from distnet.nn import layout
from distnet.nn.conv.geometry import Geometry
from distnet.nn.memory import Memory


def im2col(padded: Array, kernel: tuple[int, int], stride: int, out: Array | None = None) -> Array:
    """Padded images (N, C, H, W) to windows (N * OH * OW, C * KH * KW)."""
    windows = sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::stride, ::stride]
    n, c, oh, ow, kh, kw = windows.shape
    if out is None:
        out = np.empty((n * oh * ow, c * kh * kw), padded.dtype)
    np.copyto(out.reshape(n, oh, ow, c, kh, kw), windows.transpose(0, 2, 3, 1, 4, 5))
    return out


def col2im(columns: Array, padded: Array, kernel: tuple[int, int], stride: int) -> Array:
    """The adjoint of `im2col`: adds every window's elements back where they were taken from."""
    kh, kw = kernel
    n, c, h, w = padded.shape
    oh, ow = (h - kh) // stride + 1, (w - kw) // stride + 1
    windows = columns.reshape(n, oh, ow, c, kh, kw).transpose(0, 3, 4, 5, 1, 2)
    padded[...] = 0
    for i in range(kh):
        for j in range(kw):
            rows = slice(i, i + stride * oh, stride)
            cols = slice(j, j + stride * ow, stride)
            padded[:, :, rows, cols] += windows[:, :, i, j]
    return padded


class Im2colConvolution:
    """Forward and backward of one convolution for one batch size."""

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        g = self.geometry = geometry
        self.memory = memory
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
        self.output_shape = (n, *g.output_shape)
        self.columns = np.empty((n * g.oh * g.ow, g.c * g.kh * g.kw), dtype)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters: weight (F, C, KH, KW), bias (F,) if there is one."""
        self.weight = weight.reshape(len(weight), -1)  # (F, C * KH * KW)
        self.bias = bias

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """From `x` (N, C, H, W) to `out` (N, F, OH, OW)."""
        if x is not self.inbox:
            np.copyto(self.inbox, x)
        im2col(self.padded, self.geometry.kernel, self.geometry.stride, self.columns)
        y = self.columns @ self.weight.T  # (N * OH * OW, F)
        if self.bias is not None:
            np.add(y, self.bias, out=y)
        np.copyto(out, self._as_images(y))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The gradients of the last forward pass; returns that of the input, (N, C, H, W)."""
        rows = np.empty((len(self.columns), self.geometry.f), self.columns.dtype)
        np.copyto(self._as_images(rows), dy)
        np.matmul(rows.T, self.columns, out=dweight.reshape(self.weight.shape))
        if dbias is not None:
            np.add.reduce(rows, axis=0, out=dbias)
        if not need_dx:
            return None
        dpadded = self.memory.gradient(self.padded.shape, self.padded.dtype)
        col2im(rows @ self.weight, dpadded, self.geometry.kernel, self.geometry.stride)
        return self.geometry.interior(dpadded)

    def _as_images(self, rows: Array) -> Array:
        n, f, oh, ow = self.output_shape
        return rows.reshape(n, oh, ow, f).transpose(0, 3, 1, 2)
