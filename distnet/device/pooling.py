"""Poolings: one element of all windows at a time, in row order, which decides ties and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from distnet.device import images
from distnet.device.devices import Device
from distnet.device.images import Windows
from distnet.device.layer import DeviceLayer
from distnet.device.mirror import Mirror
from distnet.nn.conv.average_pooling import AvgPool2d, GlobalAvgPool2d
from distnet.nn.conv.pooling import MaxPool2d, Pooling
from distnet.nn.conv.unpooling import MaxUnpool2d

P = TypeVar("P", bound=Pooling)


class _DevicePooling(DeviceLayer[P]):
    """What both poolings by windows do."""

    def __init__(self, layer: P, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.windows = Windows.of_pooling(layer.windows, layer.shape[0])


class DeviceMaxPool2d(_DevicePooling[MaxPool2d]):
    """The maximum of each window; its first in row order receives the gradient.

    (Of a window with a NaN another element may receive it than on the host: it is NaN anyway.)
    """

    def __init__(self, layer: MaxPool2d, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        bounds = (layer.windows.bounds(axis, of_image=True) for axis in (0, 1))
        (rows, _), (columns, _) = bounds
        first = rows[:, None] * layer.kernel[1] + columns
        self.first = device.to_device(first.astype(np.int32))  # (OH, OW)

    def forward(self, x: Any, training: bool) -> Any:
        y, self.chosen = self.kernels.max_pool(x, self.windows, self.first)
        return y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        return self.kernels.max_unpool(dy, self.windows, self.chosen) if need_dx else None


class DeviceMaxUnpool2d(DeviceLayer[MaxUnpool2d]):
    """Values go to where the maxima were of the pooling that it undoes."""

    def join(self, before: Sequence[DeviceLayer[Any]]) -> None:
        pools = (each for each in before if each.layer is self.layer.pool)
        self.pool = next(each for each in pools if isinstance(each, DeviceMaxPool2d))

    def forward(self, x: Any, training: bool) -> Any:
        return self.kernels.max_unpool(x, self.pool.windows, self.pool.chosen)

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        return self.kernels.take_chosen(dy, self.pool.windows, self.pool.chosen)


class DeviceAvgPool2d(_DevicePooling[AvgPool2d]):
    """The mean of each window."""

    def __init__(self, layer: AvgPool2d, device: Device, mirror: Mirror) -> None:
        super().__init__(layer, device, mirror)
        self.num_pixels = device.to_device(layer.num_pixels[:, :, None])

    def forward(self, x: Any, training: bool) -> Any:
        w = self.windows
        y, *others = images.elements(images.padded(self.xp, x, w.pad, w.padded_size), w)
        for element in others:
            y = y + element
        return y / self.num_pixels

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        w, share = self.windows, dy / self.num_pixels
        total = self.xp.zeros((*dy.shape[:2], *w.padded_size, dy.shape[-1]), dy.dtype)
        for element in images.elements(total, w):
            element += share
        return images.inside(total, w.pad, w.size)


class DeviceGlobalAvgPool2d(DeviceLayer[GlobalAvgPool2d]):
    """The mean of each channel's pixels."""

    def forward(self, x: Any, training: bool) -> Any:
        self.shape = x.shape
        terms = self.numbers.addends(x, x.shape[2] * x.shape[3])
        return self.xp.sum(terms, axis=(2, 3)) / self.layer.num_pixels

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        return self.xp.broadcast_to(dy[:, :, None, None] / self.layer.num_pixels, self.shape)
