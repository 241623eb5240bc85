"""A network once more with some layers changed, and the values of the others: for inference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.nn.branches import Branches, Residual
from distnet.nn.layer import Layer
from distnet.nn.network import Network
from distnet.nn.own_layers import computes_as
from distnet.nn.sequential import Sequential


def container_like(
    layer: Layer, chain: Callable[[Sequence[Layer]], Iterable[Layer]]
) -> Layer | None:
    """A container of what `chain` makes of the layers in each chain of it; None: it is none.

    A block of a user's own is none: nobody knows what it does with its layers.
    """
    if computes_as(layer, Sequential):
        return Sequential(chain(layer.layers))
    for kind in (Residual, Branches):
        if computes_as(layer, kind):
            return kind(*(chain(path.layers) for path in layer.paths))
    return None


def layer_like(layer: Layer, **options: Any) -> Layer:
    """A new layer with the same arguments, but for `options`."""
    args, kwargs = copy.deepcopy(layer.arguments())
    return type(layer)(*args, **kwargs | options)


def network_like(
    network: Network,
    layers: Iterable[Layer],
    copies: Iterable[tuple[Layer, Layer]],
    arithmetic: Arithmetic = FLOAT,
) -> Network:
    """A network of `layers`, some of which are copies of those of `network`, with their values.

    Not by their names: layers that are new among them may have changed these.
    """
    new = Network(
        layers,
        network.input_shape,
        seed=None,
        dtype=network.parameters.dtype,
        arithmetic=arithmetic,
    )
    new.classes = network.classes
    for source, layer in copies:
        for arrays, own in (
            (source.parameters(), dict(layer.parameters())),
            (source.statistics(), dict(layer.statistics())),
        ):
            for name, array in arrays:
                np.copyto(own[name].value, array.value)
    new.parameters.refresh()
    return new
