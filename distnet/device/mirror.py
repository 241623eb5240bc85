"""A copy of a network's parameters on a device: one vector, brought over in one go.

A device that trains alone updates it there. Then this one is ahead of the host's, until somebody
asks for that, see `nn.parameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.device.devices import Device
from distnet.nn.parameters import Parameter


class Mirror:
    """parameters: all of a network, in the order of its flat vector; asked for when the first is
    brought, when it is known which are frozen: these lie behind all others.

    is_ahead: whether they were changed here, and the host has not seen them since.
    """

    def __init__(self, device: Device, parameters: Callable[[], Iterable[Parameter]]) -> None:
        self._device, self._parameters = device, parameters
        self._places: dict[Parameter, slice] = {}
        self._vector: Any = None
        self.is_ahead = False

    def bring(self) -> None:
        """Copies the values of all from the host."""
        if self._vector is None:
            self._lay_out()
        values = [each.value.ravel() for each in self._places]
        if not values:
            return
        together = np.concatenate(values)
        if self._vector is None:
            self._vector = self._device.to_device(together)
        else:
            self._device.fill(self._vector, together)

    def of(self, parameter: Parameter) -> Any:
        """The values of one, in its shape, a view."""
        return self._vector[self._places[parameter]].reshape(parameter.shape)

    @property
    def trained(self) -> Any:
        """What is trained, `(P,)`, a view, in the order of the network's flat vector."""
        return self._vector[: self._num_trained]

    def take_home(self, values: Array) -> None:
        """Copies those that are trained to `values` `(P,)` of the host."""
        np.copyto(values, self._device.to_host(self.trained))
        self.is_ahead = False

    def _lay_out(self) -> None:
        ordered = sorted(self._parameters(), key=lambda each: each.is_frozen)  # a stable order
        start = 0
        for each in ordered:
            self._places[each] = slice(start, start + each.size)
            start += each.size
        self._num_trained = sum(each.size for each in ordered if not each.is_frozen)
