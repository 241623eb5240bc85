"""Layers one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import Arithmetic, portable
from distnet.base.arrays import Array, Shape, format_shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, layout
from distnet.nn.layer import Layer
from distnet.nn.memory import Memory
from distnet.nn.own_layers import (
    check_calls,
    check_shape,
    checked_gradient,
    checked_output,
    computes_as,
    is_own,
    keeps_output,
    shown,
)
from distnet.nn.parameters import Parameter, Statistic, num_trained


class Place(Enum):
    """Where a layer writes its output, if that is not known before it is called."""

    HERE = "over its input"
    OUT = "where the caller of the chain wants the chain's output"


Destination = Array | Place | None  # None: an array of the layer


class Stage(NamedTuple):
    """What is called for one layer of the chain, `first`, or for it and the next: `run`.

    is_own: whether that is a layer of a user's own.
    """

    name: str
    first: Layer
    run: Layer
    is_own: bool


@portable
class Sequential(Layer):
    """y = f_k(... f_2(f_1(x))).

    Runs two layers as one where they offer it (`Layer.fused_with`). Decides where each
    layer writes: into the inbox of the next one if it has one, over its own input where that is
    safe, else into an array of the layer.
    """

    kind = "block"

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        if not isinstance(layers, Iterable):
            raise arguments.refusal("Sequential", "layers", layers, f"a list, such as [{layers!r}]")
        self.layers: Sequence[Layer] = list(layers)  # a tuple once it is built: they stay
        if type(self).__init__ is Sequential.__init__:  # not that of a user's own block
            self.made_with = (self.layers,), {}
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise arguments.refusal("Sequential", "a layer", layer, "objects such as ReLU()")
            if is_own(layer):
                check_calls(layer, Layer, "forward", "backward")

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.layers = tuple(self.layers)
        for derived in ("stages", "_in_reverse", "_num_fixed", "_that_derive"):
            self.__dict__.pop(derived, None)
        self.input_shape = shape
        for number, layer in enumerate(self.layers):
            layer.join(self.layers[:number])
        for name, layer in self.named_layers():
            layer.input_shape = shape
            try:
                built = layer.build(shape, dtype)
                if is_own(layer):
                    check_shape(built)
            except ValueError as error:
                raise ValueError(
                    f"{name}, whose input is {format_shape(shape)}: {error}"
                ) from error
            layer.output_shape = shape = built
        self.output_shape = shape
        return shape

    def compute_in(self, arithmetic: Arithmetic) -> None:
        super().compute_in(arithmetic)
        for name, layer in self.named_layers():
            try:
                layer.compute_in(arithmetic)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def named_layers(self) -> Iterator[tuple[str, Layer]]:
        """The layers with their names: the kind and how many of that kind came before."""
        counts: dict[str, int] = {}
        for layer in self.layers:
            counts[layer.kind] = counts.get(layer.kind, 0) + 1
            yield f"{layer.kind}{counts[layer.kind]}", layer

    @cached_property
    def stages(self) -> list[Stage]:
        """What runs, in order: the layers, some pairs of them as one, none that holds nothing."""
        named = [pair for pair in self.named_layers() if not _is_empty(pair[1])]
        stages = []
        while named:
            name, layer = named.pop(0)
            pair = layer.fused_with(named[0][1]) if named else None
            if pair is not None:
                name = f"{name}+{named.pop(0)[0]}"
            run = pair or layer
            stages.append(Stage(name, layer, run, is_own(run)))
        return stages

    @cached_property
    def _in_reverse(self) -> list[tuple[Stage, bool, bool]]:
        """The last stage first: whether it overwrites the gradient it gets, and needs to hand on
        one where nobody in front of the chain asks for it.
        """
        numbered = reversed(list(enumerate(self.stages)))
        return [
            (stage, self._overwrites_gradient(stage), number > self._num_fixed)
            for number, stage in numbered
        ]

    @cached_property
    def _num_fixed(self) -> int:
        """How many of the first stages train nothing: alone, they need no gradients."""
        trained = [num_trained(stage.first) > 0 for stage in self.stages]
        return trained.index(True) if True in trained else len(trained)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, layer in self.named_layers():
            yield from ((f"{name}.{part}", parameter) for part, parameter in layer.parameters())

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        for name, layer in self.named_layers():
            yield from ((f"{name}.{part}", statistic) for part, statistic in layer.statistics())

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    def update_statistics(self) -> None:
        super().update_statistics()
        for layer in self.layers:
            layer.update_statistics()

    def named_leaves(self) -> Iterator[tuple[str, Layer]]:
        for name, layer in self.named_layers():
            for part, leaf in layer.named_leaves():
                yield f"{name}.{part}".rstrip("."), leaf

    def use(self, memory: Memory) -> None:
        super().use(memory)
        turn = 0  # whose slot of two the next gradient goes to: not that of the one it is made from
        for stage in self.stages:
            if stage is self.stages[0]:
                stage.run.use(memory.for_first())
            elif self._overwrites_gradient(stage):
                stage.run.use(memory.for_in_place())
            else:
                stage.run.use(memory.for_inner(turn))
                turn = 1 - turn

    def refresh(self) -> None:
        super().refresh()
        for layer in self._that_derive:
            layer.refresh()

    @cached_property
    def _that_derive(self) -> list[Layer]:
        """The layers that may have derived something from parameters."""
        return list(dict.fromkeys([*self.layers, *(stage.run for stage in self.stages)]))

    @property
    def needs_output(self) -> bool:  # type: ignore[override]
        return bool(self.stages) and keeps_output(self.stages[-1].run)

    def inbox(self, n: int) -> Array | None:
        return self.stages[0].run.inbox(n) if self.stages else None

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        destinations = self.memory.once(len(x), "destinations", lambda: self._plan(len(x)))
        stores = self.arithmetic.stores
        for stage, destination in zip(self.stages, destinations, strict=True):
            there: Array | None
            if destination is Place.HERE:
                there = x
            elif destination is Place.OUT:
                # Layers may work there on the spot: what they compute shall not depend on it.
                there = None if out is None or not layout.has_whole_rows(out) else out
            else:
                there = destination
            x = self._forward_of(stage, x, there, at)
            if stores:
                self.arithmetic.store(x)
        if out is None or x is out or not self.stages:
            return x
        np.copyto(out, x)
        return out

    def backward(
        self,
        dy: Array,
        out: Array | None = None,
        need_dx: bool = True,
        after: Callable[[Layer], None] | None = None,
    ) -> Array | None:
        """As every layer's; `after(layer)`: the gradients from that layer on are final."""
        gradient: Array | None = dy
        first = self.stages[0] if self.stages else None
        for stage, overwrites, needed in self._in_reverse:
            if gradient is None:
                return None
            there = out if stage is first else gradient if overwrites else None
            gradient = self._backward_of(stage, gradient, there, need_dx or needed)
            if self.arithmetic.stores and gradient is not None:
                self.arithmetic.store(gradient)
            if after is not None:
                after(stage.first)
        return gradient

    def _forward_of(
        self, stage: Stage, x: Array, out: Array | None, at: MicroBatch | None
    ) -> Array:
        if not stage.is_own:
            return stage.run.forward(x, out, at)
        given = x if out is x else shown(self.memory, f"input of {stage.name}", x)
        return checked_output(stage.name, stage.run, stage.run.forward(given, out, at), x, out)

    def _backward_of(
        self, stage: Stage, dy: Array, out: Array | None, need_dx: bool
    ) -> Array | None:
        if not stage.is_own:
            return stage.run.backward(dy, out, need_dx)
        given = dy if out is dy else shown(self.memory, f"gradient for {stage.name}", dy)
        dx = stage.run.backward(given, out, need_dx)
        return checked_gradient(stage.name, stage.run, dx, dy, out) if need_dx else None

    def _overwrites_gradient(self, stage: Stage) -> bool:
        """Whether a stage may write its gradient over the one it gets.

        What comes from outside belongs to the caller: only ours is overwritten. And the first one's
        goes to the caller, where it asks for it.
        """
        at_an_end = stage is self.stages[0] or stage is self.stages[-1]
        return stage.run.in_place and not at_an_end

    def _plan(self, n: int) -> list[Destination]:
        """Where each stage writes its output for batch size `n`."""
        layers = [stage.run for stage in self.stages]
        plan: list[Destination] = [Place.OUT] * len(layers)
        for i in reversed(range(1, len(layers))):
            producer, consumer = layers[i - 1], layers[i]
            plan[i - 1] = consumer.inbox(n)
            if consumer.in_place and not keeps_output(producer):
                # The producer writes where the consumer will; the consumer works on the spot.
                plan[i - 1], plan[i] = plan[i], Place.HERE
        return plan


def _is_empty(layer: Layer) -> bool:
    return isinstance(layer, Sequential) and not layer.stages and computes_as(layer, Sequential)
