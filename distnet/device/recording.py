"""Work on a device that is recorded once for each shape of its inputs, and then repeated."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.device.devices import Device

MOST = 8  # recordings that are kept: each has the memory of a whole pass


@dataclass
class Recording:
    """inputs: arrays on the device that stay where they are."""

    inputs: list[Any]
    run: Callable[[], Any]
    is_recorded: bool = False


class Recorded:
    """A function of arrays on the device, called with arrays of the host.

    The first call for inputs of some shapes runs as it is, since many shapes occur once (the last
    batch of a data set); the second one is recorded.
    """

    def __init__(self, device: Device, function: Callable[..., Any]) -> None:
        self._device, self._function = device, function
        self._known: OrderedDict[Any, Recording] = OrderedDict()

    def __call__(self, *inputs: Array, manner: Hashable = None) -> Any:
        """What the function returns, arrays on the device: valid until the next call.

        manner: what decides, beside the shapes of the inputs, what the function does.
        """
        inputs = tuple(np.ascontiguousarray(x, x.dtype.newbyteorder("=")) for x in inputs)
        key = manner, tuple((each.shape, each.dtype.str) for each in inputs)
        recording = self._known.get(key)
        if recording is None:
            return self._run_first(key, inputs)
        self._known.move_to_end(key)
        for array, values in zip(recording.inputs, inputs, strict=True):
            self._device.fill(array, values)
        if not recording.is_recorded:
            recording.run = self._device.record(recording.run)
            recording.is_recorded = True
        return recording.run()

    def _run_first(self, key: Any, inputs: tuple[Array, ...]) -> Any:
        arrays = [self._device.to_device(each) for each in inputs]
        self._known[key] = Recording(arrays, lambda: self._function(*arrays))
        while len(self._known) > MOST:
            self._known.popitem(last=False)
        return self._known[key].run()
