"""The seam: a network's chain of layers that computes them on a device.

To the rest of distnet it is the `Sequential` of the same layers, with arrays of the host on both
sides: inputs, outputs and gradients of outputs go over, and the gradients of parameters come back
into the flat vector. So losses, sums, optimizers and files have nothing to do with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.device.containers import Chain
from distnet.device.devices import Device, DeviceError
from distnet.device.images import channels_first, channels_last
from distnet.nn import Layer, Network, Sequential


@portable
class OnDevice(Sequential):
    """Layers one after another, on a device; what belongs to one lies there from call to call."""

    def __init__(self, layers: Iterable[Layer], device: Device) -> None:
        super().__init__(layers)
        self.made_with = (self.layers, device), {}
        self.device = device

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        shape = super().build(shape, dtype)
        if self.arithmetic.stores:
            raise DeviceError(
                f"arithmetic {self.arithmetic.name}: nobody has written it for devices, expected "
                "float32 or portable; use --device cpu"
            )
        self.chain = Chain(self, self.device)
        return shape

    def refresh(self) -> None:
        super().refresh()
        self.chain.refresh()

    def inbox(self, n: int) -> Array | None:
        return None

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        (y,) = self.forward_group(x[None], None if at is None else [at])
        if at is not None:
            self.chain.hand_over(0, at)
        if out is None:
            return y
        np.copyto(out, y)
        return out

    def backward(
        self,
        dy: Array,
        out: Array | None = None,
        need_dx: bool = True,
        after: Callable[[Layer], None] | None = None,
    ) -> Array | None:
        dx = self.backward_group(dy[None], need_dx)
        self._copy_gradients(0)
        if after is not None and self.layers:
            after(self.layers[0])
        if dx is None or out is None:
            return None if dx is None else dx[0]
        np.copyto(out, dx[0])
        return out

    def forward_group(self, x: Array, at: Sequence[MicroBatch] | None) -> Array:
        """The outputs `(G, N, ...)` of G micro-batches of N samples each, in one pass."""
        self._at = at
        return self._to_host(self.chain.forward(self._to_device(x), at))

    def backward_group(self, dy: Array, need_dx: bool = False) -> Array | None:
        """The gradients of their parameters, which `take_gradients` fetches one after another."""
        dx = self.chain.backward(self._to_device(dy), need_dx)
        to_host = self.device.to_host
        self._gradients = [(p, to_host(grads)) for p, grads in self.chain.gradients()]
        return None if dx is None else self._to_host(dx)

    def take_gradients(self, g: int) -> None:
        """Those of micro-batch `g` of the group, and what it adds to running statistics."""
        self._copy_gradients(g)
        if self._at is not None:
            self.chain.hand_over(g, self._at[g])

    def _copy_gradients(self, g: int) -> None:
        for parameter, gradients in self._gradients:
            np.copyto(parameter.grad, gradients[g])

    def _to_device(self, x: Array) -> Array:
        return self.device.to_device(channels_last(x) if x.ndim == 5 else x)

    def _to_host(self, x: Array) -> Array:
        array = self.device.to_host(x)
        return channels_first(array) if array.ndim == 5 else array


def compute_on(network: Network, device: Device) -> Network:
    """The network itself, whose layers compute on `device` from now on.

    To be called before it is part of an objective or of `joined`: its vectors are new ones. In
    portable arithmetic all results stay what they are, to the last bit. Raises DeviceError for a
    layer, or an arithmetic, that nobody has written for devices.
    """
    network.run_by(partial(OnDevice, device=device))
    return network
