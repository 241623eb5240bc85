"""The contract of a layer on a device.

Images are `(G, N, H, W, C)` there, channels last, and vectors `(G, N, K)`: G micro-batches of N
samples each, which know nothing of each other. Each call makes new arrays: the module has a pool.

A pass is `load`, `forward`, `backward`, and these only begin work on the device: nothing comes from
the host or goes there, so that a device may record them once and then repeat them without Python
(`recording`). What a pass needs of the host is brought over before: parameters by the `Mirror`, the
rest by `fetch` and `prepare`, into arrays that stay where they are. A repeated pass leaves nothing
in attributes: what the host is to have of it are the arrays of `gradients`, `moments`, `shown`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.device.devices import Device
from distnet.device.mirror import Mirror
from distnet.device.numbers import Numbers
from distnet.nn.layer import Layer
from distnet.nn.layers.normalization import BatchNorm
from distnet.nn.parameters import Parameter, num_trained

L = TypeVar("L", bound=Layer)


class Moments(NamedTuple):
    """Mean and variance of the last pass in training, `(G, ..., C)` float64, of so many values."""

    layer: BatchNorm
    mean: Any
    var: Any
    num_values: int


class Shown(NamedTuple):
    """What an attribute of `owner` is to be after the last pass in evaluation, `(G, ...)`."""

    owner: Any
    name: str
    value: Any


class DeviceLayer(ABC, Generic[L]):
    """Computes what `layer` means, with its parameters.

    layer: the one of the network, built, which the device never calls to compute.
    mirror: where its parameters are on the device; of nested layers all have the same one.
    """

    def __init__(self, layer: L, device: Device, mirror: Mirror) -> None:
        self.layer, self.device, self.xp, self.mirror = layer, device, device.xp, mirror
        self.kernels = device.kernels
        self.numbers = Numbers(device, layer.arithmetic)

    def join(self, before: Sequence[DeviceLayer[Any]]) -> None:
        """Told which layers come before it in its list, as `Layer.join`."""

    def fetch(self, training: bool) -> None:
        """Brings over what is not a parameter, such as running statistics: these have changed.

        training: whether for passes in training or in evaluation.
        """

    def draw(self, at: Sequence[MicroBatch], n: int) -> None:
        """Draws the random numbers that `prepare` is going to bring over, while a device computes.

        Nothing goes there: what does may still be read by the pass before.
        """

    def prepare(self, at: Sequence[MicroBatch], n: int) -> None:
        """Brings over what the next pass needs, for micro-batches of `n` samples each.

        In training that are the random numbers of these micro-batches; () is evaluation. Raises
        ValueError if the layer was told something that cannot be.
        """

    def check(self, x: Array) -> None:
        """Raises ValueError for an input on the host that the layer would refuse.

        A network's first layer is asked; others cannot know without waiting for the device.
        """

    def manner(self) -> Hashable:
        """What decides, beside the shapes of the inputs, which work a pass is."""
        return None

    def load(self) -> None:
        """Makes operands of the parameters."""

    def settle(self) -> None:
        """After an update there: does to the parameters what the layer's `refresh` does to them."""

    @abstractmethod
    def forward(self, x: Any, training: bool) -> Any:
        """The output for input `x`, in training or evaluation mode."""

    @abstractmethod
    def backward(self, dy: Any, need_dx: bool) -> Any:
        """The gradient of the input from that of the output; None unless `need_dx`."""

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        """The parameters with their gradients `(G, *shape)` of the last backward pass."""
        return iter(())

    def moments(self) -> Iterator[Moments]:
        """What running statistics are made of."""
        return iter(())

    def shown(self) -> Iterator[Shown]:
        """What the layer of the network lets others see of it."""
        return iter(())


class Composed(DeviceLayer[L]):
    """A layer that is made of others, `inner`: what all of them do alike."""

    inner: list[DeviceLayer[Any]]

    def fetch(self, training: bool) -> None:
        for each in self.inner:
            each.fetch(training)

    def draw(self, at: Sequence[MicroBatch], n: int) -> None:
        for each in self.inner:
            each.draw(at, n)

    def prepare(self, at: Sequence[MicroBatch], n: int) -> None:
        for each in self.inner:
            each.prepare(at, n)

    def manner(self) -> Hashable:
        return tuple(each.manner() for each in self.inner)

    def load(self) -> None:
        for each in self.inner:
            each.load()

    def settle(self) -> None:
        for each in self.inner:
            each.settle()

    def gradients(self) -> Iterator[tuple[Parameter, Any]]:
        for each in self.inner:
            if num_trained(each.layer):  # what is frozen may not have run backward
                yield from each.gradients()

    def moments(self) -> Iterator[Moments]:
        for each in self.inner:
            yield from each.moments()

    def shown(self) -> Iterator[Shown]:
        for each in self.inner:
            yield from each.shown()
