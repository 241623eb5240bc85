"""The seam: a network's chain of layers that computes them on a device.

To the rest of distnet it is the `Sequential` of the same layers, with arrays of the host on both
sides: inputs, outputs and gradients of outputs go over, and the gradients of parameters come back
into the flat vector. So losses, sums, optimizers and files have nothing to do with it.
(`training.step.device_pass` knows better, where it can.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.device.containers import Chain
from distnet.device.devices import Device, DeviceError
from distnet.device.images import channels_first, channels_last
from distnet.device.layer import Moments, Shown
from distnet.device.mirror import Mirror
from distnet.device.recording import Recorded
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
        self.mirror = Mirror(self.device, lambda: (each for _, each in self.parameters()))
        self.chain = Chain(self, self.device, self.mirror)
        self.evaluation = Recorded(self.device, self._evaluate)
        self._is_stale, self._is_loaded = True, False
        self._unfetched = {True, False}  # whether for training, whether for evaluation
        return shape

    def refresh(self) -> None:
        super().refresh()
        self._is_stale, self._is_loaded = not self.mirror.is_ahead, False
        self._unfetched = {True, False}

    def update_statistics(self) -> None:
        super().update_statistics()
        self._unfetched = {True, False}

    def inbox(self, n: int) -> Array | None:
        return None

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        if at is None:
            x = x[None]
            self.chain.check(x)
            self.bring(x.shape[1], ())
            self._is_loaded = False  # what it leaves behind belongs to a recording
            manner = self.chain.manner()
            outputs, shown = self.evaluation(self.as_images(x), manner=manner)
            y = self._to_host(outputs)[0]
            for owner, name, value in shown:
                setattr(owner, name, self.device.to_host(value)[0])
        else:
            (y,) = self.forward_group(x[None], [at])
            self._hand_over(at)
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
        self.take_gradients(0)
        if after is not None and self.layers:
            after(self.layers[0])
        if dx is None or out is None:
            return None if dx is None else dx[0]
        np.copyto(out, dx[0])
        return out

    def bring(self, n: int, at: Sequence[MicroBatch]) -> None:
        """Copies over what the next pass needs of the host, over micro-batches of `n` samples.

        at: which these are in training; () is evaluation.
        """
        self.bring_parameters()
        if bool(at) in self._unfetched:
            self.chain.fetch(training=bool(at))
            self._unfetched.discard(bool(at))
        self.chain.prepare(at, n)

    def bring_parameters(self) -> None:
        """Copies them over, if the host has others than the device."""
        if self._is_stale:
            self.mirror.bring()
            self._is_stale = self._is_loaded = False

    def forward_group(self, x: Array, at: Sequence[MicroBatch]) -> Array:
        """The outputs `(G, N, ...)` of G micro-batches of N samples each, in one pass."""
        self.chain.check(x)
        self.bring(x.shape[1], at)
        if not self._is_loaded:
            self.chain.load()
            self._is_loaded = True
        x = self.device.to_device(self.as_images(x))
        return self._to_host(self.chain.forward(x, training=True))

    def backward_group(self, dy: Array, need_dx: bool = False) -> Array | None:
        """The gradients of their parameters, which `take_gradients` fetches one after another."""
        dy = self.device.to_device(self.as_images(dy))
        dx = self.chain.backward(dy, need_dx)
        to_host = self.device.to_host
        self._gradients = [(p, to_host(grads)) for p, grads in self.chain.gradients()]
        return None if dx is None else self._to_host(dx)

    def take_gradients(self, g: int) -> None:
        """Copies the gradients of micro-batch `g` of the group to the parameters."""
        for parameter, gradients in self._gradients:
            np.copyto(parameter.grad, gradients[g])

    def _hand_over(self, at: MicroBatch) -> None:
        """What a micro-batch by itself adds to running statistics."""
        to_host = self.device.to_host
        for moments in self.chain.moments():
            contribute(moments, to_host(moments.mean), to_host(moments.var), at)

    def as_images(self, x: Array) -> Array:
        """Images with their channels last, as arrays on the device are; vectors as they are."""
        return channels_last(x) if x.ndim == 5 else x

    def _evaluate(self, x: Any) -> tuple[Any, list[Shown]]:
        self.chain.load()
        return self.chain.forward(x, training=False), list(self.chain.shown())

    def _to_host(self, x: Any) -> Array:
        array = self.device.to_host(x)
        return channels_first(array) if array.ndim == 5 else array


def contribute(moments: Moments, mean: Array, var: Array, at: MicroBatch) -> None:
    """To running statistics, what one micro-batch adds."""
    layer, num_values = moments.layer, moments.num_values
    layer.contribute(mean.reshape(-1), var.reshape(-1), at.share, num_values)


def compute_on(network: Network, device: Device) -> Network:
    """The network itself, whose layers compute on `device` from now on.

    To be called before it is part of an objective or of `joined`: its vectors are new ones. In
    portable arithmetic all results stay what they are, to the last bit. Raises DeviceError for a
    layer, or an arithmetic, that nobody has written for devices.
    """
    network.run_by(partial(OnDevice, device=device))
    return network
