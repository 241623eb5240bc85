"""A copy of a network's parameters on a device: one vector, brought over in one go."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from distnet.device.devices import Device
from distnet.nn.parameters import Parameter


class Mirror:
    """Those parameters that layers have asked for, one after another.

    Their places are decided when the first one is read: then all have to be known.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._starts: dict[Parameter, int] = {}
        self._size = 0
        self._vector: Any = None

    def add(self, parameter: Parameter) -> None:
        """It is to have a place."""
        self._starts[parameter] = self._size
        self._size += parameter.size

    def bring(self) -> None:
        """Copies the values of all from the host."""
        values = [each.value.ravel() for each in self._starts]
        if not values:
            return
        together = np.concatenate(values)
        if self._vector is None:
            self._vector = self._device.to_device(together)
        else:
            self._device.fill(self._vector, together)

    def of(self, parameter: Parameter) -> Any:
        """The values of one, in its shape, a view."""
        start = self._starts[parameter]
        return self._vector[start : start + math.prod(parameter.shape)].reshape(parameter.shape)
