"""Fully connected layers, and Gram matrices: products of whole samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distnet.device.elementwise import like_input, vectors_of
from distnet.device.layer import DeviceLayer
from distnet.nn.layers.gram import GramMatrix
from distnet.nn.layers.linear import Linear
from distnet.nn.parameters import Parameter


class DeviceLinear(DeviceLayer[Linear]):
    """y = x W + b, images as vectors in (C, H, W) order."""

    def load(self) -> None:
        self.weight = self.numbers.operand(self.computing_weight()[None])[0]  # (K, out)
        if self.layer.has_bias:
            self.bias = self.mirror.of(self.layer.bias)

    def computing_weight(self) -> Any:
        """As `Linear.computing_weight`."""
        return self.mirror.of(self.layer.weight)

    def forward(self, x: Any, training: bool) -> Any:
        k, out = self.layer.weight.shape
        self.layer.arithmetic.check_terms("Linear", max(x.shape[1], k, out))
        self.shape = x.shape
        self.x = self.numbers.operand(vectors_of(x))
        y = self.kernels.matmul(self.x, self.weight)
        return y + self.bias if self.layer.has_bias else y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        dy = self.numbers.operand(dy)
        self.dweight = self.kernels.matmul(self.x.transpose(0, 2, 1), dy)
        if self.layer.has_bias:
            self.dbias = self.kernels.sum_rows(dy)  # of rounded numbers: exact
        if not need_dx:
            return None
        return like_input(self.kernels.matmul(dy, self.weight.T), self.shape)

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        yield self.layer.weight, self.dweight
        if self.layer.has_bias:
            yield self.layer.bias, self.dbias


class DeviceGramMatrix(DeviceLayer[GramMatrix]):
    """G = F F^T / (H W) for each image, row by row."""

    def forward(self, x: Any, training: bool) -> Any:
        g, n, h, w, c = x.shape
        self.shape = x.shape
        self.pixels = self.numbers.operand(x).reshape(g, n, h * w, c)
        y = self.kernels.matmul(self.pixels.swapaxes(-1, -2), self.pixels)
        return y.reshape(g, n, c * c) / self.layer.num_pixels

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        g, n, *_, c = self.shape
        dgram = dy.reshape(g, n, c, c)
        both = (dgram + dgram.swapaxes(-1, -2)) / self.layer.num_pixels
        return self.kernels.matmul(self.pixels, self.numbers.operand(both)).reshape(self.shape)
