"""Poolings: one element of all windows at a time, in row order, which decides ties and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from distnet.base.keys import MicroBatch
from distnet.device import images
from distnet.device.layer import DeviceLayer
from distnet.nn.conv.average_pooling import AvgPool2d, GlobalAvgPool2d
from distnet.nn.conv.pooling import MaxPool2d, Pooling

P = TypeVar("P", bound=Pooling)


class _DevicePooling(DeviceLayer[P]):
    """What both poolings by windows do."""

    def _elements(self, padded: Any) -> list[Any]:
        windows = self.layer.windows
        return images.elements(padded, windows.counts, windows.kernel, windows.stride, (1, 1))

    def _padded(self, x: Any, margin: float) -> Any:
        windows = self.layer.windows
        return images.padded(self.xp, x, windows.pad, windows.padded_size, margin)

    def _zeros_like_padded(self, dy: Any) -> Any:
        size = self.layer.windows.padded_size
        return self.xp.zeros((*dy.shape[:2], *size, dy.shape[-1]), dy.dtype)

    def _inside(self, padded: Any) -> Any:
        return images.inside(padded, self.layer.windows.pad, self.layer.windows.size)


class DeviceMaxPool2d(_DevicePooling[MaxPool2d]):
    """The maximum of each window; its first in row order receives the gradient.

    (Of a window with a NaN another element may receive it than on the host: it is NaN anyway.)
    """

    def refresh(self) -> None:
        """Where nothing is greater, the first element of a window that is a pixel wins."""
        bounds = (self.layer.windows.bounds(axis, of_image=True) for axis in (0, 1))
        (rows, _), (columns, _) = bounds
        first = rows[:, None] * self.layer.kernel[1] + columns  # (OH, OW)
        self.first = self.device.to_device(first.astype(np.int32)[:, :, None])

    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        xp = self.xp
        y, *others = self._elements(self._padded(x, -np.inf))
        chosen = self.first
        for k, element in enumerate(others, start=1):
            chosen = xp.where(element > y, np.int32(k), chosen)
            y = xp.maximum(element, y)
        self.chosen = xp.broadcast_to(chosen, y.shape)
        return y

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        total = self._zeros_like_padded(dy)
        for k, element in enumerate(self._elements(total)):
            element += dy * (self.chosen == k)
        return self._inside(total)


class DeviceAvgPool2d(_DevicePooling[AvgPool2d]):
    """The mean of each window."""

    def refresh(self) -> None:
        self.num_pixels = self.device.to_device(self.layer.num_pixels[:, :, None])

    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        y, *others = self._elements(self._padded(x, 0))
        for element in others:
            y = y + element
        return y / self.num_pixels

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        total, share = self._zeros_like_padded(dy), dy / self.num_pixels
        for element in self._elements(total):
            element += share
        return self._inside(total)


class DeviceGlobalAvgPool2d(DeviceLayer[GlobalAvgPool2d]):
    """The mean of each channel's pixels."""

    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        self.shape = x.shape
        return self.numbers.sum(x, (2, 3)) / self.layer.num_pixels

    def backward(self, dy: Any, need_dx: bool) -> Any:
        if not need_dx:
            return None
        return self.xp.broadcast_to(dy[:, :, None, None] / self.layer.num_pixels, self.shape)
