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
from distnet.nn.conv.algorithm import Algorithm
from distnet.nn.conv.geometry import Geometry, output_size
from distnet.nn.memory import Memory

Pair = tuple[int, int]  # (rows, columns)


def im2col(
    padded: Array,
    kernel: Pair,
    stride: Pair = (1, 1),
    dilation: Pair = (1, 1),
    out: Array | None = None,
) -> Array:
    """Padded images (N, C, H, W) to windows (N * OH * OW, C * KH * KW)."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    extent = dh * (kh - 1) + 1, dw * (kw - 1) + 1
    windows = sliding_window_view(padded, extent, axis=(2, 3))[:, :, ::sh, ::sw, ::dh, ::dw]
    n, c, oh, ow, _, _ = windows.shape
    if out is None:
        out = np.empty((n * oh * ow, c * kh * kw), padded.dtype)
    np.copyto(out.reshape(n, oh, ow, c, kh, kw), windows.transpose(0, 2, 3, 1, 4, 5))
    return out


def col2im(
    columns: Array, padded: Array, kernel: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)
) -> Array:
    """The adjoint of `im2col`: adds every window's elements back where they were taken from."""
    (kh, kw), (sh, sw), (dh, dw) = kernel, stride, dilation
    n, c, h, w = padded.shape
    oh, ow = output_size(h, kh, sh, 0, dh), output_size(w, kw, sw, 0, dw)
    windows = columns.reshape(n, oh, ow, c, kh, kw).transpose(0, 3, 4, 5, 1, 2)
    padded[...] = 0
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dh, i * dh + sh * oh, sh)
            cols = slice(j * dw, j * dw + sw * ow, sw)
            padded[:, :, rows, cols] += windows[:, :, i, j]
    return padded


class Im2colConvolution(Algorithm):
    """One product for each group: windows (P, C * KH * KW) with filters, P = N * OH * OW.

    K = C / groups * KH * KW is what one filter multiplies, FG = F / groups the filters of a group.
    """

    def __init__(self, geometry: Geometry, n: int, dtype: DTypeLike, memory: Memory) -> None:
        super().__init__(geometry, n, dtype, memory)
        g = geometry
        self.padded = layout.zeros((n, g.c, *g.padded_size), dtype)
        self.inbox = g.interior(self.padded)
        self.windows = g.kernel, g.stride, g.dilation
        self.columns = np.empty((n * g.oh * g.ow, g.c * g.kh * g.kw), dtype)
        self.by_group = self._by_group(self.columns)  # (groups, P, K)

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes the parameters."""
        groups = self.geometry.groups
        self.weight = weight.reshape(groups, len(weight) // groups, -1)  # (groups, FG, K)
        self.bias = bias

    def forward(self, x: Array, out: Array, keep: bool) -> None:
        """Unrolls, multiplies, adds the bias."""
        self.receive(x)
        im2col(self.padded, *self.windows, out=self.columns)
        y = np.empty((len(self.columns), self.geometry.f), self.dtype)
        np.matmul(self.by_group, self.weight.transpose(0, 2, 1), out=self._by_group(y))
        if self.bias is not None:
            np.add(y, self.bias, out=y)
        np.copyto(out, self._as_images(y))

    def backward(
        self, dy: Array, dweight: Array, dbias: Array | None, need_dx: bool
    ) -> Array | None:
        """The transposed products, and the windows of the input's gradient folded up."""
        rows = np.empty((len(self.columns), self.geometry.f), self.dtype)
        np.copyto(self._as_images(rows), dy)
        of_groups = self._by_group(rows)  # (groups, P, FG)
        np.matmul(
            of_groups.transpose(0, 2, 1), self.by_group, out=dweight.reshape(self.weight.shape)
        )
        if dbias is not None:
            np.add.reduce(rows, axis=0, out=dbias)
        if not need_dx:
            return None
        dcolumns = np.empty_like(self.columns)
        np.matmul(of_groups, self.weight, out=self._by_group(dcolumns))
        dpadded = self.memory.gradient(self.padded.shape, self.dtype)
        return self.geometry.interior(col2im(dcolumns, dpadded, *self.windows))

    def _by_group(self, rows: Array) -> Array:
        """Rows (P, groups * K) as (groups, P, K), a view."""
        return rows.reshape(len(rows), self.geometry.groups, -1).transpose(1, 0, 2)

    def _as_images(self, rows: Array) -> Array:
        """Rows (P, F) as (N, F, OH, OW), a view."""
        n, f, oh, ow = self.output_shape
        return rows.reshape(n, oh, ow, f).transpose(0, 3, 1, 2)
