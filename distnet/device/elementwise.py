"""Layers that look at one number at a time, or only move numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.device.devices import Device
from distnet.device.images import channels_first, channels_last
from distnet.device.layer import DeviceLayer
from distnet.device.mirror import Mirror
from distnet.nn.layers.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from distnet.nn.layers.dropout import Dropout
from distnet.nn.layers.linear import Flatten, Unflatten
from distnet.nn.layers.quantized import Quantize


class DeviceReLU(DeviceLayer[ReLU]):
    """y = max(x, 0)."""

    def forward(self, x: Any, training: bool) -> Any:
        self.y = self.xp.maximum(x, 0)
        return self.y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return self.kernels.relu_backward(dy, self.y) if need_dx else None


class DeviceLeakyReLU(DeviceLayer[LeakyReLU]):
    """y = x where x > 0, else `slope` x."""

    def forward(self, x: Any, training: bool) -> Any:
        one, slope = (self.layer.dtype.type(each) for each in (1, self.layer.slope))
        self.slopes = self.xp.where(x > 0, one, slope)
        return x * self.slopes

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return dy * self.slopes if need_dx else None


class DeviceSigmoid(DeviceLayer[Sigmoid]):
    """y = 1 / (1 + exp(-x))."""

    def forward(self, x: Any, training: bool) -> Any:
        self.y = sigmoid(x, self.layer.arithmetic)
        return self.y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return dy * ((1 - self.y) * self.y) if need_dx else None


class DeviceTanh(DeviceLayer[Tanh]):
    """y = tanh(x)."""

    def forward(self, x: Any, training: bool) -> Any:
        self.y = self.layer.arithmetic.tanh(x)
        return self.y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return dy * (1 - self.y * self.y) if need_dx else None


class DeviceQuantize(DeviceLayer[Quantize]):
    """y = x / scale, rounded, within bounds; the gradient is that of the straight line inside."""

    def forward(self, x: Any, training: bool) -> Any:
        layer, xp = self.layer, self.xp
        self.factor = layer.dtype.type(layer.factor)
        self.y = xp.minimum(xp.maximum(xp.rint(x * self.factor), layer.low), layer.high)
        return self.y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        inside = (self.y > self.layer.low) & (self.y < self.layer.high)
        return dy * inside * self.factor


class DeviceDropout(DeviceLayer[Dropout]):
    """The masks of the host: their random words are drawn there, and go over as bytes."""

    def __init__(self, layer: Dropout, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.kept: dict[tuple[int, ...], Any] = {}  # by shape: an array stays where it is
        self._drawn: tuple[Any, Array] = None, np.zeros(0)  # for what, and its masks

    def draw(self, at: Sequence[MicroBatch], n: int) -> None:
        if self._drawn[0] == (tuple(at), n):
            return
        shape = (n, *self.layer.output_shape)  # logical: (N, C, H, W) or (N, K)
        kept = np.stack([self.layer.keeps(shape, each) for each in at])
        if len(shape) == 4:
            kept = np.ascontiguousarray(channels_last(kept))
        self._drawn = (tuple(at), n), kept

    def prepare(self, at: Sequence[MicroBatch], n: int) -> None:
        if not at:
            return
        self.draw(at, n)
        _, kept = self._drawn
        if kept.shape in self.kept:
            self.device.fill(self.kept[kept.shape], kept)
        else:
            self.kept[kept.shape] = self.device.to_device(kept)

    def forward(self, x: Any, training: bool) -> Any:
        self.mask = None
        if not training:
            return x
        self.mask = self.kept[x.shape] * self.layer.scale
        return x * self.mask

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        return dy if self.mask is None else dy * self.mask


class DeviceFlatten(DeviceLayer[Flatten]):
    """Images to vectors in (C, H, W) order."""

    def forward(self, x: Any, training: bool) -> Any:
        self.shape = x.shape
        return vectors_of(x)

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return like_input(dy, self.shape) if need_dx else None


class DeviceUnflatten(DeviceLayer[Unflatten]):
    """Vectors in (C, H, W) order to images."""

    def forward(self, x: Any, training: bool) -> Any:
        return channels_last(x.reshape(*x.shape[:2], *self.layer.image_shape))

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return vectors_of(dy) if need_dx else None


def sigmoid(x: Any, arithmetic: Arithmetic) -> Any:
    """1 / (1 + exp(-x)). (NumPy hands the calls of `arithmetic.exp` on to the module.)"""
    with np.errstate(over="ignore", under="ignore"):
        return 1 / (arithmetic.exp(-x) + 1)


def vectors_of(x: Any) -> Any:
    """Vectors `(G, N, K)` of images in (C, H, W) order, or of vectors."""
    if x.ndim == 5:
        x = channels_first(x)
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def like_input(vectors: Any, shape: tuple[int, ...]) -> Any:
    """The way back of `vectors_of`: to images `(G, N, H, W, C)`, or to vectors."""
    if len(shape) != 5:
        return vectors.reshape(shape)
    g, n, h, w, c = shape
    return channels_last(vectors.reshape(g, n, c, h, w))
