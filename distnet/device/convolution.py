"""Convolutions as the book has them (section 7.4): windows unrolled to rows, one matrix product.

A GPU has the bandwidth for what makes this slow on a CPU, and wants few and large calls: unrolling
is one copy, of all images, and the product one call for all micro-batches.

Letters: G micro-batches of N images, C channels, F filters, kernel KH x KW, R groups of CG = C / R
channels and FG = F / R filters. P = N OH OW windows of K = KH KW CG elements in each group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distnet.device.devices import Device
from distnet.device.images import Pair, Windows
from distnet.device.layer import DeviceLayer
from distnet.device.mirror import Mirror
from distnet.nn.conv.algorithm import FILTER_BITS, NINE
from distnet.nn.conv.conv2d import BIAS_BITS, Conv2d
from distnet.nn.conv.conv_transpose2d import ConvTranspose2d
from distnet.nn.parameters import Parameter


class DeviceConv2d(DeviceLayer[Conv2d]):
    """Any geometry. What is rounded, and to what, is told by `nn.conv.conv2d`."""

    def __init__(self, layer: Conv2d, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.windows = Windows.of_convolution(layer.geometry)

    def load(self) -> None:
        """Filters as (R, K, FG), the elements of a window in the order (KH, KW, CG); the bias."""
        g, numbers = self.layer.geometry, self.numbers
        weight = self.computing_weight()[None]
        self.bias = None if self.layer.bias is None else self.mirror.of(self.layer.bias)
        if numbers.rounds:
            ninth = self.xp.divide(weight, NINE, dtype=np.float64)
            unit = self.kernels.unit(ninth, numbers.bits)
            weight = self.kernels.to_grid(ninth, unit) * NINE
            self.filter_unit = unit  # (1, 1, 1, 1, 1)
            self.finest = None
            if self.bias is not None:
                of_bias = self.kernels.unit(self.bias[None], BIAS_BITS)
                self.finest = of_bias.reshape(unit.shape) / unit
        by_group = weight.reshape(g.groups, -1, *g.weight_shape[1:])  # (R, FG, CG, KH, KW)
        in_order = by_group.transpose(0, 3, 4, 2, 1)
        self.weight = self.xp.ascontiguousarray(in_order).reshape(g.groups, -1, g.f // g.groups)

    def computing_weight(self) -> Any:
        """As `Conv2d.computing_weight`."""
        return self.mirror.of(self.layer.weight)

    def forward(self, x: Any, training: bool) -> Any:
        g, numbers, kernels = self.layer.geometry, self.numbers, self.kernels
        self.layer.arithmetic.check_terms("Conv2d", x.shape[1] * g.oh * g.ow, FILTER_BITS)
        bias = self.bias
        if numbers.rounds:
            unit = kernels.unit(x, numbers.bits)
            if bias is not None:
                unit = self.xp.maximum(unit, self.finest)
                bias = kernels.to_grid(bias, unit * self.filter_unit)
            x = kernels.to_grid(x, unit)
        self.x = x
        rows = kernels.unroll(x, self.windows)  # (G, R, P, K)
        y = self._by_image(kernels.matmul(rows, self.weight), x.shape[1])
        return y if bias is None else y + bias

    def backward(self, dy: Any, need_dx: bool) -> Any:
        g, kernels = self.layer.geometry, self.kernels
        dy = self.numbers.operand(dy)
        size, n = dy.shape[:2]
        rows = self._by_group(dy)  # (G, R, P, FG)
        dw = kernels.products_of_rows(kernels.unroll(self.x, self.windows), rows)  # (G, R, K, FG)
        dw = dw.reshape(size, g.groups, g.kh, g.kw, -1, g.f // g.groups)
        self.dweight = dw.transpose(0, 1, 5, 4, 2, 3).reshape(size, *g.weight_shape)
        if self.bias is not None:
            self.dbias = kernels.sum_rows(dy.reshape(size, -1, g.f))  # of rounded numbers: exact
        if not need_dx:
            return None
        return kernels.fold(kernels.matmul(rows, self.weight.transpose(0, 2, 1)), self.windows, n)

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight
        if self.layer.bias is not None:
            yield self.layer.bias, self.dbias

    def _by_image(self, products: Any, n: int) -> Any:
        """Products (G, R, P, FG) as images (G, N, OH, OW, F)."""
        g = self.layer.geometry
        return products.transpose(0, 2, 1, 3).reshape(len(products), n, g.oh, g.ow, g.f)

    def _by_group(self, pixels: Any) -> Any:
        """The way back."""
        g = self.layer.geometry
        rows = pixels.reshape(len(pixels), -1, g.groups, g.f // g.groups)
        return self.xp.ascontiguousarray(rows.transpose(0, 2, 1, 3))


class DeviceConvTranspose2d(DeviceLayer[ConvTranspose2d]):
    """The way of a convolution's gradient: each pixel makes a window, and these are added up."""

    def __init__(self, layer: ConvTranspose2d, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        (_, *counts), (f, *size) = layer.shape, layer.output_shape
        steps = (layer.kernel, layer.stride, layer.pad)
        self.windows = Windows(_pair(size), layer.padded_size, _pair(counts), *steps, per_group=f)

    def load(self) -> None:
        """The weight as (C, KH KW F)."""
        weight = self.numbers.operand(self.mirror.of(self.layer.weight)[None])[0]
        in_order = self.xp.ascontiguousarray(weight.transpose(0, 2, 3, 1))
        self.weight = in_order.reshape(len(in_order), -1)

    def forward(self, x: Any, training: bool) -> Any:
        g, n, h, w, c = x.shape
        terms = max(n * h * w, self.layer.weight.size)
        self.layer.arithmetic.check_terms("ConvTranspose2d", terms)
        self.rows = self.numbers.operand(x).reshape(g, 1, -1, c)
        y = self.kernels.fold(self.kernels.matmul(self.rows, self.weight), self.windows, n)
        return y + self.mirror.of(self.layer.bias) if self.layer.has_bias else y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        dy = self.numbers.operand(dy)
        g, n, *_, f = dy.shape
        rows = self.kernels.unroll(dy, self.windows)  # (G, 1, N H W, KH KW F)
        dw = self.kernels.products_of_rows(self.rows, rows)  # (G, 1, C, KH KW F)
        dw = dw.reshape(g, -1, *self.layer.kernel, f).transpose(0, 1, 4, 2, 3)
        self.dweight = dw.reshape(g, *self.layer.weight.shape)
        if self.layer.has_bias:
            self.dbias = self.kernels.sum_rows(dy.reshape(g, -1, f))  # of rounded numbers: exact
        if not need_dx:
            return None
        c, h, w = self.layer.shape
        return self.kernels.matmul(rows, self.weight.T).reshape(g, n, h, w, c)

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight
        if self.layer.has_bias:
            yield self.layer.bias, self.dbias


def _pair(sizes: Sequence[int]) -> Pair:
    rows, columns = sizes
    return rows, columns
