"""Weights and activations of one bit: signs, and the floats behind them, see `nn.layers.binary`."""

from __future__ import annotations

from typing import Any

from distnet.device.convolution import DeviceConv2d
from distnet.device.layer import DeviceLayer
from distnet.device.linear import DeviceLinear
from distnet.nn.layers.binary import Sign


def signs(xp: Any, x: Any) -> Any:
    """+1 where x >= 0, -1 where x < 0; NaN stays NaN. (CuPy's own sign of NaN is 0.)"""
    one = x.dtype.type(1)
    return xp.where(x >= 0, one, xp.where(x < 0, -one, x))


class DeviceSign(DeviceLayer[Sign]):
    """y = +1 where x >= 0, else -1; dx = dy where -1 <= x <= 1, else 0."""

    def forward(self, x: Any, training: bool) -> Any:
        self.inside = self.xp.abs(x) <= 1
        return signs(self.xp, x)

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return dy * self.inside if need_dx else None


class _DeviceBinaryWeight(DeviceLayer[Any]):
    """What layers share that compute with the signs of a weight."""

    def settle(self) -> None:
        weight = self.mirror.of(self.layer.weight)
        bound = self.layer.weight.bound
        self.xp.maximum(weight, -bound, out=weight)
        self.xp.minimum(weight, bound, out=weight)

    def computing_weight(self) -> Any:
        return signs(self.xp, self.mirror.of(self.layer.weight))


class DeviceBinaryConv2d(_DeviceBinaryWeight, DeviceConv2d):
    """A convolution by the signs of its filters."""


class DeviceBinaryLinear(_DeviceBinaryWeight, DeviceLinear):
    """A product by the signs of its weight."""
