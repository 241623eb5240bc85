"""Several micro-batches in one pass through a network, with the bits of one after another.

Calls take longer than numbers in a network of a few thousand parameters: a pass over 25 images
takes most of its time to find its way. So a layer may be given the rows of k micro-batches at once,
n of each. What it computes for each row alone it computes for all; where rows meet, in sums over a
micro-batch, there is an axis of length k: a product is k products of the same shapes as before, so
that BLAS adds in the same order. And what a pass calls is noted once: to find its way through the
layers each time takes a tenth of such a step.

Not every layer can: convolutions are slower so, since a stack of images leaves the cache; batch
normalisation and dropout know one micro-batch at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from distnet.base.arrays import Array
from distnet.base.blas import terms_of_small_products
from distnet.base.keys import MicroBatch
from distnet.nn import blocking
from distnet.nn.blocking import Step
from distnet.nn.layer import Layer
from distnet.nn.layers.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from distnet.nn.layers.linear import Flatten, Linear
from distnet.nn.network import Network
from distnet.nn.own_layers import is_own
from distnet.nn.sequential import Sequential, Stage

# A layer that is derived from one of these may do something else with its rows.
STACKABLE = frozenset({Sequential, Linear, Flatten, ReLU, LeakyReLU, Sigmoid, Tanh})


def is_stackable(network: Network) -> bool:
    """Whether `stacked` takes the network: all of its layers can, in plain arithmetic."""
    if network.arithmetic.rounds or network.arithmetic.stores or network.parameters.are_joined:
        return False
    if is_own(network):  # it may hold what cannot be copied
        return False
    layers = all_layers(network.body)
    return all(type(layer) in STACKABLE and not is_patched(layer) for layer in layers)


def all_layers(layer: Layer) -> Iterator[Layer]:
    """A layer and, of a chain, those within, chains among them."""
    yield layer
    for inner in layer.layers if isinstance(layer, Sequential) else ():
        yield from all_layers(inner)


def is_patched(layer: Layer) -> bool:
    """Whether this very layer computes something else than its kind, which no copy would do."""
    return "forward" in vars(layer) or "backward" in vars(layer)


def stacked(network: Network, rows: int, most: int) -> Network:
    """A network with the same parameters that takes up to `most` micro-batches of `rows` at once.

    Its inputs and outputs have k * rows rows, and `parameters.grads` is `(most, P)`, of which
    backward fills the first k. In plain arithmetic no layer derives anything from the values, so
    that nobody has to `refresh` it.
    """
    twin, own = copy.deepcopy(network), network.parameters
    twin.run_by(NotedChain)
    for layer in twin.body.leaves():
        if isinstance(layer, Linear):
            layer.rows = rows
    twin.parameters.move_to(
        values=own.place,
        grads=np.zeros((most, own.place.size), own.grads.dtype),
        constants=own.constants,
        statistics=own.statistics,
        batch_statistics=own.batch_statistics,
    )
    return twin


class _Forward(NamedTuple):
    """What a pass forward calls and returns; which inputs layers have, whom no call tells that."""

    y: Array
    calls: list[Step]
    inputs: list[tuple[Linear, Array]]


class NotedChain(Sequential):
    """A chain of stackable layers that notes what a pass calls, and makes these calls from then on.

    A note holds for one place of the input. Gradients are copied to where they are always. A note
    of backward belongs to one of forward: it reads the arrays that this one fills, in place of
    which layers may have made others since.
    """

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        name, make = ("forward", terms_of_small_products()), partial(self._note_forward, x)
        self._went = self.memory.views(len(x), name, (x,), make)
        blocking.run(self._went.calls)
        return self._went.y

    def backward(
        self,
        dy: Array,
        out: Array | None = None,
        need_dx: bool = True,
        after: Callable[[Layer], None] | None = None,
    ) -> Array | None:
        own = self.memory.array("gradient", dy.shape, dy.dtype)
        np.copyto(own, dy)
        name = "backward", need_dx, terms_of_small_products()
        make = partial(self._note_backward, own, need_dx)
        dx, calls = self.memory.views(len(dy), name, (self._went, own), make)
        blocking.run(calls)
        return dx

    def _note_forward(self, x: Array) -> _Forward:
        self._calls: list[Step] = []
        y, linear = super().forward(x), [each for each in self.leaves() if type(each) is Linear]
        return _Forward(y, self._calls, [(each, each.x) for each in linear])

    def _note_backward(self, dy: Array, need_dx: bool) -> tuple[Array | None, list[Step]]:
        for layer, x in self._went.inputs:
            layer.x = x
        self._calls = []
        return super().backward(dy, None, need_dx), self._calls

    def _forward_of(
        self, stage: Stage, x: Array, out: Array | None, at: MicroBatch | None
    ) -> Array:
        y, layer = super()._forward_of(stage, x, out, at), stage.run
        if isinstance(layer, Linear) and layer.x is x:  # not a copy in another order
            self._calls += layer.forward_steps(y)
        else:
            self._calls.append(partial(layer.forward, x, y))
        return y

    def _backward_of(
        self, stage: Stage, dy: Array, out: Array | None, need_dx: bool
    ) -> Array | None:
        dx, layer = super()._backward_of(stage, dy, out, need_dx), stage.run
        if isinstance(layer, Linear):
            self._calls += layer.backward_steps(dy, dx)
        else:
            self._calls.append(partial(layer.backward, dy, dx, need_dx))
        return dx
