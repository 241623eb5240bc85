"""The contract of a layer on a device.

Images are `(G, N, H, W, C)` there, channels last, and vectors `(G, N, K)`: G micro-batches of N
samples each, which know nothing of each other. Each call makes new arrays: the module has a pool.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Generic, TypeVar

from distnet.base.keys import MicroBatch
from distnet.device.devices import Device
from distnet.device.numbers import Numbers
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter

L = TypeVar("L", bound=Layer)


class DeviceLayer(ABC, Generic[L]):
    """Computes what `layer` means, with its parameters.

    layer: the one of the network, built, which the device never calls to compute.
    """

    def __init__(self, layer: L, device: Device) -> None:
        self.layer, self.device, self.xp = layer, device, device.xp
        self.numbers = Numbers(device, layer.arithmetic, layer.dtype)
        self.refresh()

    @abstractmethod
    def forward(self, x: Any, at: Sequence[MicroBatch] | None) -> Any:
        """The output for input `x`; training mode if `at` says which micro-batches these are."""

    @abstractmethod
    def backward(self, dy: Any, need_dx: bool) -> Any:
        """The gradient of the input from that of the output; None unless `need_dx`."""

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        """The parameters with their gradients `(G, *shape)` of the last backward pass."""
        return iter(())

    def refresh(self) -> None:
        """Forgets what was made of parameters and statistics, which have changed."""

    def hand_over(self, g: int, at: MicroBatch) -> None:
        """Writes what micro-batch `g` of the group adds to running statistics."""
