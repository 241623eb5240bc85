"""Layers one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import DTypeLike

from distnet.nn.layer import Layer
from distnet.nn.layout import Array, Shape
from distnet.nn.parameter import Parameter, Statistic
from distnet.nn.random import Training


class _Here:
    """The destination of a layer that writes its output over its input."""


_HERE: Final = _Here()
Destination = Array | _Here | None


class Sequential(Layer):
    """y = f_k(... f_2(f_1(x))).

    Decides where each layer writes: into the inbox of the next layer if it has one, over its own
    input where that is safe, else into an array of the layer.
    """

    kind = "block"

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = list(layers)
        self._destinations: dict[int, list[Destination]] = {}

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        for layer in self.layers:
            shape = layer.build(shape, dtype)
        return shape

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """The layers with their names: the kind and how many of that kind came before."""
        counts: dict[str, int] = {}
        for layer in self.layers:
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
            yield f"{layer.kind}{counts[layer.kind]}", layer

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, layer in self.named_layers():
            yield from ((f"{name}.{part}", parameter) for part, parameter in layer.parameters())

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        for name, layer in self.named_layers():
            yield from ((f"{name}.{part}", statistic) for part, statistic in layer.statistics())

    def leaves(self) -> Iterator[Layer]:
        for layer in self.layers:
            yield from layer.leaves()

    def refresh(self) -> None:
        for layer in self.layers:
            layer.refresh()

    @property
    def needs_output(self) -> bool:  # type: ignore[override]
        return self.layers[-1].needs_output

    def inbox(self, n: int) -> Array | None:
        return self.layers[0].inbox(n)

    def forward(self, x: Array, out: Array | None = None, train: Training | None = None) -> Array:
        if len(x) not in self._destinations:
            self._destinations[len(x)] = self._plan(len(x))
        for layer, destination in zip(self.layers, self._destinations[len(x)], strict=True):
            there = x if isinstance(destination, _Here) else destination
            if layer is self.layers[-1] and out is not None:
                there = out
            x = layer.forward(x, there, train)
        return x

    def backward(
        self,
        dy: Array,
        out: Array | None = None,
        need_dx: bool = True,
        after: Callable[[Layer], None] | None = None,
    ) -> Array | None:
        """As every layer's; `after(layer)` is called when a layer's gradients are final."""
        gradient: Array | None = dy
        for layer in reversed(self.layers):
            first, last = layer is self.layers[0], layer is self.layers[-1]
            assert gradient is not None
            # The gradient that came from outside belongs to the caller: only ours is overwritten.
            there = gradient if layer.in_place and not last else None
            gradient = layer.backward(gradient, out if first else there, need_dx or not first)
            if after is not None:
                after(layer)
        return gradient

    def _plan(self, n: int) -> list[Destination]:
        """Where each layer writes its output for batch size `n`; the last one's is the caller's."""
        plan: list[Destination] = [None] * len(self.layers)
        for i in reversed(range(1, len(self.layers))):
            producer, consumer = self.layers[i - 1], self.layers[i]
            plan[i - 1] = consumer.inbox(n)
            if consumer.in_place and not producer.needs_output:
                # The producer writes where the consumer will; the consumer works on the spot.
                plan[i - 1], plan[i] = plan[i], _HERE
                if isinstance(plan[i - 1], _Here):
                    plan[i - 1] = None
        return plan
