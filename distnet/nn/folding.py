"""Batch normalisation folded into the layer in front of it, for inference.

In evaluation it multiplies each channel by one number and adds another, which the weights and
biases of the layer in front can do as well: gamma (W x + b - mean) / std + beta is W' x + b' with
W' = gamma / std W and b' = gamma / std (b - mean) + beta (Jacob et al. 2018, arXiv:1712.05877,
section 3.2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import numpy as np

from distnet.base.arrays import Array
from distnet.nn.branches import Branches, Residual
from distnet.nn.conv.conv2d import Conv2d
from distnet.nn.layer import Layer
from distnet.nn.layers.linear import Linear
from distnet.nn.layers.normalization import BatchNorm
from distnet.nn.network import Network
from distnet.nn.own_layers import computes_as
from distnet.nn.sequential import Sequential


def fold_batchnorm(network: Network) -> Network:
    """A new network that predicts the same, without each BatchNorm that follows a layer of weights.

    That is a `Conv2d` or a `Linear`, directly in front. The new network is for predictions: what it
    would learn is not what `network` would.
    """
    layers = _folded(network.body.layers)
    folded = Network(
        layers, network.input_shape, dtype=network.parameters.dtype, arithmetic=network.arithmetic
    )
    folded.classes = network.classes
    sources = _sources(network.body.layers)
    for leaf, (layer, norm) in zip(folded.body.leaves(), sources, strict=True):
        values = {name: parameter.value for name, parameter in layer.parameters()}
        if norm is not None:
            values |= _with_normalization(values["weight"], values.get("bias"), norm)
        for name, parameter in leaf.parameters():
            np.copyto(parameter.value, values[name])
        statistics = dict(layer.statistics())
        for name, statistic in leaf.statistics():
            np.copyto(statistic.value, statistics[name].value)
    folded.parameters.refresh()
    return folded


def _pairs(layers: Iterable[Layer]) -> Iterator[tuple[Layer, BatchNorm | None]]:
    """The layers in order, each with the BatchNorm behind it that goes into it."""
    rest = list(layers)
    while rest:
        layer = rest.pop(0)
        following = rest[0] if rest else None
        if type(layer) in (Conv2d, Linear) and computes_as(following, BatchNorm):
            yield layer, following
            del rest[0]
        else:
            yield layer, None


def _folded(layers: Iterable[Layer]) -> list[Layer]:
    """New layers, without those that are folded, and with a bias where one is folded into."""
    return [_new(layer, norm is not None) for layer, norm in _pairs(layers)]


def _new(layer: Layer, needs_bias: bool) -> Layer:
    if computes_as(layer, Sequential):
        return Sequential(_folded(layer.layers))
    for kind in (Residual, Branches):
        if computes_as(layer, kind):
            return kind(*(_folded(path.layers) for path in layer.paths))
    args, kwargs = copy.deepcopy(layer.arguments())
    return type(layer)(*args, **kwargs | ({"bias": True} if needs_bias else {}))


def _sources(layers: Iterable[Layer]) -> Iterator[tuple[Layer, BatchNorm | None]]:
    """For each leaf of the folded layers the one it is made from, and what is folded into it."""
    for layer, norm in _pairs(layers):
        if computes_as(layer, Sequential):
            yield from _sources(layer.layers)
        elif computes_as(layer, Residual) or computes_as(layer, Branches):
            for path in layer.paths:
                yield from _sources(path.layers)
        elif norm is not None:
            yield layer, norm
        else:  # a layer, or a block of a user's own, which is copied as it is
            yield from ((leaf, None) for leaf in layer.leaves())


def _with_normalization(weight: Array, bias: Array | None, norm: BatchNorm) -> dict[str, Array]:
    """The weight, (F, C, KH, KW) or (in, out), and the bias of both layers as one."""
    gain = norm.gamma.value / np.sqrt(norm.running_var.value + norm.eps)  # (F,) or (out,), float64
    mean = norm.running_mean.value
    centred = -mean if bias is None else bias - mean
    by_output = gain.reshape(-1, 1, 1, 1) if weight.ndim == 4 else gain
    return {"weight": weight * by_output, "bias": gain * centred + norm.beta.value}
