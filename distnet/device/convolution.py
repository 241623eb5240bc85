"""Convolution as the book has it (section 7.4): windows unrolled to rows, and one matrix product.

A GPU has the bandwidth for what makes this slow on a CPU, and wants few and large calls: unrolling
is one copy, of all images, and the product one call for all micro-batches.

Letters: G micro-batches of N images, C channels, F filters, kernel KH x KW, R groups of CG = C / R
channels and FG = F / R filters. P = N OH OW windows of K = KH KW CG elements in each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distnet.base.arithmetic import grid_unit
from distnet.base.keys import MicroBatch
from distnet.device import images
from distnet.device.layer import DeviceLayer
from distnet.nn.conv.algorithm import FILTER_BITS, NINE
from distnet.nn.conv.conv2d import BIAS_BITS, Conv2d
from distnet.nn.parameters import Parameter


class DeviceConv2d(DeviceLayer[Conv2d]):
    """Any geometry. What is rounded, and to what, is told by `nn.conv.conv2d`."""

    def refresh(self) -> None:
        self._is_loaded = False

    def _load(self) -> None:
        """Filters as (R, K, FG), the elements of a window in the order (KH, KW, CG); the bias."""
        if self._is_loaded:
            return
        g, numbers = self.layer.geometry, self.numbers
        weight = self.device.to_device(self.layer.weight.value)[None]
        bias = None if self.layer.bias is None else self.layer.bias.value
        if numbers.rounds:
            ninth = self.xp.divide(weight, NINE, dtype=np.float64)
            unit = numbers.unit(ninth, numbers.bits)
            weight = numbers.to_grid(ninth, unit) * NINE
            self.filter_unit = unit  # (1, 1, 1, 1, 1)
            self.finest = 0 if bias is None else grid_unit(bias, BIAS_BITS) / unit
        by_group = weight.reshape(g.groups, -1, *g.weight_shape[1:])  # (R, FG, CG, KH, KW)
        in_order = by_group.transpose(0, 3, 4, 2, 1)
        self.weight = self.xp.ascontiguousarray(in_order).reshape(g.groups, -1, g.f // g.groups)
        self.bias = None if bias is None else self.device.to_device(bias)
        self._is_loaded = True

    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        self._load()
        g, numbers = self.layer.geometry, self.numbers
        self.layer.arithmetic.check_terms("Conv2d", x.shape[1] * g.oh * g.ow, FILTER_BITS)
        bias = self.bias
        if numbers.rounds:
            unit = self.xp.maximum(numbers.unit(x, numbers.bits), self.finest)
            x = numbers.to_grid(x, unit)
            if bias is not None:
                bias = numbers.to_grid(bias, unit * self.filter_unit)
        self.x = x
        y = self._by_image(self.xp.matmul(self._windows(x), self.weight), x.shape[1])
        return y if bias is None else y + bias

    def backward(self, dy: Any, need_dx: bool) -> Any:
        g, xp = self.layer.geometry, self.xp
        dy = self.numbers.operand(dy)
        size, n = dy.shape[:2]
        rows = self._by_group(dy)  # (G, R, P, FG)
        dw = xp.matmul(self._windows(self.x).transpose(0, 1, 3, 2), rows)  # (G, R, K, FG)
        dw = dw.reshape(size, g.groups, g.kh, g.kw, -1, g.f // g.groups)
        self.dweight = dw.transpose(0, 1, 5, 4, 2, 3).reshape(size, *g.weight_shape)
        self.dbias = xp.sum(dy, axis=(1, 2, 3))  # of rounded numbers: exact
        if not need_dx:
            return None
        return self._folded(xp.matmul(rows, self.weight.transpose(0, 2, 1)), n)

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight
        if self.layer.bias is not None:
            yield self.layer.bias, self.dbias

    def _windows(self, x: Any) -> Any:
        """Images (G, N, H, W, C) unrolled: (G, R, P, K)."""
        g = self.layer.geometry
        x = self.xp.ascontiguousarray(images.padded(self.xp, x, g.pad, g.padded_size))
        size, n = x.shape[:2]
        of_g, of_n, of_row, of_column, of_channel = x.strides
        per_group = g.c // g.groups
        shape = (size, g.groups, n, g.oh, g.ow, g.kh, g.kw, per_group)
        down, right = (s * of for s, of in zip(g.stride, (of_row, of_column), strict=True))
        lower, further = (d * of for d, of in zip(g.dilation, (of_row, of_column), strict=True))
        group = per_group * of_channel
        strides = (of_g, group, of_n, down, right, lower, further, of_channel)
        windows = self.xp.lib.stride_tricks.as_strided(x, shape, strides)
        return self.xp.ascontiguousarray(windows).reshape(size, g.groups, n * g.oh * g.ow, -1)

    def _folded(self, windows: Any, n: int) -> Any:
        """The way back: each element added where it was taken from, (G, N, H, W, C)."""
        g, size = self.layer.geometry, len(windows)
        by_element = windows.reshape(size, g.groups, n, g.oh, g.ow, g.kh * g.kw, -1)
        by_element = by_element.transpose(5, 0, 2, 3, 4, 1, 6)  # (KH KW, G, N, OH, OW, R, CG)
        by_element = by_element.reshape(g.kh * g.kw, size, n, g.oh, g.ow, g.c)
        total = self.xp.zeros((size, n, *g.padded_size, g.c), windows.dtype)
        counts = (g.oh, g.ow)
        places = images.elements(total, counts, g.kernel, g.stride, g.dilation)
        for place, element in zip(places, by_element, strict=True):
            place += element
        return images.inside(total, g.pad, (g.h, g.w))

    def _by_image(self, products: Any, n: int) -> Any:
        """Products (G, R, P, FG) as images (G, N, OH, OW, F)."""
        g = self.layer.geometry
        return products.transpose(0, 2, 1, 3).reshape(len(products), n, g.oh, g.ow, g.f)

    def _by_group(self, pixels: Any) -> Any:
        """The way back."""
        g = self.layer.geometry
        rows = pixels.reshape(len(pixels), -1, g.groups, g.f // g.groups)
        return rows.transpose(0, 2, 1, 3)
