"""Batch normalisation folded into the layer in front of it, for inference.

In evaluation it multiplies each channel by one number and adds another, which the weights and
biases of the layer in front can do as well: gamma (W x + b - mean) / std + beta is W' x + b' with
W' = gamma / std W and b' = gamma / std (b - mean) + beta (Jacob et al. 2018, arXiv:1712.05877,
section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from distnet.base.arrays import Array
from distnet.nn.conv.conv2d import Conv2d
from distnet.nn.layer import Layer
from distnet.nn.layers.linear import Linear
from distnet.nn.layers.normalization import BatchNorm
from distnet.nn.network import Network
from distnet.nn.own_layers import computes_as
from distnet.nn.remaking import container_like, layer_like, network_like


def fold_batchnorm(network: Network) -> Network:
    """A new network that predicts the same, without each BatchNorm that follows a layer of weights.

    That is a `Conv2d` or a `Linear`, directly in front. The new network is for predictions: what it
    would learn is not what `network` would.
    """
    copies: list[tuple[Layer, Layer]] = []
    folds: list[tuple[Layer, BatchNorm, Layer]] = []

    def chain(layers: Iterable[Layer]) -> list[Layer]:
        return [new(*pair) for pair in _pairs(layers)]

    def new(layer: Layer, norm: BatchNorm | None) -> Layer:
        if container := container_like(layer, chain):
            return container
        if norm is None:
            copies.append((layer, layer_like(layer)))
            return copies[-1][1]
        folds.append((layer, norm, layer_like(layer, bias=True)))
        return folds[-1][2]

    layers = chain(network.body.layers)
    folded = network_like(network, layers, copies, network.arithmetic)
    for source, norm, layer in folds:
        values = {name: parameter.value for name, parameter in source.parameters()}
        values = _with_normalization(values["weight"], values.get("bias"), norm)
        for name, parameter in layer.parameters():
            np.copyto(parameter.value, values[name])
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


def _with_normalization(weight: Array, bias: Array | None, norm: BatchNorm) -> dict[str, Array]:
    """The weight, (F, C, KH, KW) or (in, out), and the bias of both layers as one."""
    gain = norm.gamma.value / np.sqrt(norm.running_var.value + norm.eps)  # (F,) or (out,), float64
    mean = norm.running_mean.value
    centred = -mean if bias is None else bias - mean
    by_output = gain.reshape(-1, 1, 1, 1) if weight.ndim == 4 else gain
    return {"weight": weight * by_output, "bias": gain * centred + norm.beta.value}
