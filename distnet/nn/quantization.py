"""A trained network in numbers of eight bits: weights and activations as whole numbers.

In front of each `Conv2d` and `Linear` a `Quantize` makes whole numbers of the activations, the
weights and biases are whole numbers, and a `Scale` behind brings back the unit (Jacob et al. 2018,
arXiv:1712.05877, sections 2.1 and 2.4). The largest numbers that some images lead to decide the
units of the activations, the largest weight of each output those of its weights: nothing is
trained.

NumPy has no product of bytes, and needs none: whole numbers below 2^24 are exact in float32, and so
is a sum of products whose magnitudes add up to less. `sum_bounds` says how far they can reach. Then
the sums have the same bits with any BLAS, in any order, on any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.conv.conv2d import Conv2d
from distnet.nn.folding import fold_batchnorm
from distnet.nn.layer import Layer
from distnet.nn.layers.linear import Linear
from distnet.nn.layers.quantized import Quantize, Scale
from distnet.nn.network import Network
from distnet.nn.remaking import container_like, layer_like, network_like

EXACT = 2**24  # float32 has every whole number up to this


@dataclass
class Place:
    """A layer of weights of the network that is quantized, and what is made of it."""

    source: Conv2d | Linear
    quantize: Quantize
    layer: Layer
    scale: Scale


def quantize(
    network: Network, images: object, *, weight_bits: int = 8, activation_bits: int = 8
) -> Network:
    """A new network that predicts nearly the same with whole numbers of few bits.

    images: some hundred of all kinds that it will see, as for `Network.predict`. Batch
    normalisation is folded first where it can be. The new network is for predictions. Its
    convolutions are plain products, since Winograd's transforms do not keep whole numbers whole.
    Raises ValueError for a network that is quantized already, and unless there are 2 to 24 bits,
    one of them for the sign.
    """
    weight_bits = arguments.whole("quantize", "weight_bits", weight_bits, 2, 24)
    activation_bits = arguments.whole("quantize", "activation_bits", activation_bits, 2, 24)
    if any(isinstance(leaf, Quantize) for leaf in network.body.leaves()):
        raise ValueError("quantize: found a network of whole numbers, expected one of floats")
    folded = fold_batchnorm(network)
    watches = _watch(folded, images)
    places: list[Place] = []
    copies: list[tuple[Layer, Layer]] = []

    def change(layer: Layer) -> list[Layer]:
        if not _has_plain_weights(layer):
            copies.append((layer, layer_like(layer)))
            return [copies[-1][1]]
        options = {"algorithm": "blocked"} if isinstance(layer, Conv2d) else {}
        first = watches[layer].quantize(activation_bits)
        places.append(Place(layer, first, layer_like(layer, **options), Scale()))
        return [first, places[-1].layer, places[-1].scale]

    small = network_like(folded, _changed(folded.body.layers, change), copies)
    for place in places:
        _fill(place, 2 ** (weight_bits - 1) - 1)
    small.parameters.refresh()
    return small


def sum_bounds(network: Network) -> dict[str, int]:
    """How large the sums of each quantized layer can become, whatever the input, by its name."""
    bounds, top = {}, None
    for name, leaf in network.body.named_leaves():
        if isinstance(leaf, Conv2d | Linear) and top is not None:
            weight = np.abs(leaf.weight.value.astype(np.float64))
            sums = top * weight.sum(axis=_inputs(leaf))
            if bias := dict(leaf.parameters()).get("bias"):
                sums += np.abs(bias.value)
            bounds[name] = int(sums.max())
        top = max(-leaf.low, leaf.high) if isinstance(leaf, Quantize) else None
    return bounds


class _Watch(Layer):
    """y = x, and which numbers have come by."""

    kind = "watch"
    in_place = True

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = 0.0, 0.0

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        y = self.output(x.shape, out)
        if y is not x:
            np.copyto(y, x)
        return y

    def quantize(self, bits: int) -> Quantize:
        """With a unit in which these numbers just fit into so many bits."""
        is_signed = self.low < 0
        top = 2 ** (bits - 1) - 1 if is_signed else 2**bits - 1
        largest = max(-self.low, self.high) or 1.0
        return Quantize(largest / top, low=-top if is_signed else 0, high=top)


def _watch(network: Network, images: object) -> dict[Layer, _Watch]:
    """What came into each layer of weights while the network predicted `images`."""
    watches: dict[Layer, _Watch] = {}
    copies: list[tuple[Layer, Layer]] = []

    def in_front(layer: Layer) -> list[Layer]:
        copies.append((layer, layer_like(layer)))
        if not _has_plain_weights(layer):
            return [copies[-1][1]]
        watches[layer] = _Watch()
        return [watches[layer], copies[-1][1]]

    network_like(network, _changed(network.body.layers, in_front), copies).predict(images)
    return watches


def _changed(layers: Iterable[Layer], change: Callable[[Layer], list[Layer]]) -> list[Layer]:
    """New layers: containers of them, and what `change` makes of each of the others."""
    new: list[Layer] = []
    for layer in layers:
        container = container_like(layer, lambda inner: _changed(inner, change))
        new += [container] if container else change(layer)
    return new


def _has_plain_weights(layer: Layer) -> TypeGuard[Conv2d | Linear]:
    """Whether it computes with its weights as they are, which a subclass need not."""
    return type(layer) in (Conv2d, Linear)


def _fill(place: Place, top: int) -> None:
    """Whole numbers up to `top` for the weights, and the unit of each output's sums."""
    source = place.source
    weight = source.weight.value.astype(np.float64)
    largest = np.abs(weight).max(axis=_inputs(source), keepdims=True)
    unit = np.where(largest > 0, largest, 1) / top  # (F, 1, 1, 1) or (1, out)
    factor = unit.ravel() * place.quantize.scale
    values = {"weight": np.rint(weight / unit) + 0.0}  # no -0, which bytes do not have
    if bias := dict(source.parameters()).get("bias"):
        values["bias"] = np.rint(bias.value / factor)
    for name, parameter in place.layer.parameters():
        np.copyto(parameter.value, values[name])
    np.copyto(place.scale.factor.value, factor)


def _inputs(layer: Conv2d | Linear) -> tuple[int, ...]:
    """The axes of a weight that one output adds up: (F, C, KH, KW) or (in, out)."""
    return (1, 2, 3) if isinstance(layer, Conv2d) else (0,)
