"""What a network sees in images: the outputs of some of its layers, and the way back from them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape
from distnet.nn.layer import Layer
from distnet.nn.network import Network
from distnet.nn.sequential import Sequential


class Features:
    """The outputs of chosen layers of a network, the taps, for images of any size it can read.

    network: a chain; its layers up to the last tap are copied with what they have learned, and are
    constants from then on. They compute in portable arithmetic if it does, else in floats.
    taps: names of layers in the chain, such as "relu3".
    input_shape: (C, H, W) of the images, which may be others than those that the network was
    trained on as long as no layer up to the last tap depends on their size, as Linear does.

    Arrays belong to the layers: the next call overwrites them.
    """

    def __init__(self, network: Network, taps: Sequence[str], input_shape: Shape) -> None:
        self.taps = tuple(taps)
        blocks = [Sequential(layers) for layers in _cut(network, self.taps)]
        self.network = Network(
            blocks,
            input_shape,
            seed=None,
            dtype=network.parameters.dtype,
            arithmetic=arithmetic_of_features(network),
        )
        own, known = self.network.parameters, network.parameters
        _copy(known.named(), own.named())
        _copy(known.named_statistics(), own.named_statistics())
        self.network.freeze(*own.all_named())

    @property
    def shapes(self) -> list[Shape]:
        """The shape of one image's features at each tap, (C, H, W)."""
        return [block.output_shape for block in self._blocks]

    def forward(self, x: Array) -> list[Array]:
        """For images `(N, C, H, W)` the features `(N, C', H', W')` at each tap, in their order."""
        features = []
        for block in self._blocks:
            x = block.forward(x)
            features.append(x)
        return features

    def backward(self, gradients: Sequence[Array | None]) -> Array:
        """The gradient of the images `(N, C, H, W)`, from those of the features at each tap.

        None stands for zeros; the last one has to be given. They are those of the last call of
        `forward`.
        """
        *others, dy = gradients
        assert dy is not None
        for block, earlier in zip(reversed(self._blocks), [*reversed(others), None], strict=True):
            dx = block.backward(dy)
            assert dx is not None
            dy = dx if earlier is None else np.add(dx, earlier, out=dx)
        return dy

    @property
    def _blocks(self) -> Sequence[Layer]:
        return self.network.body.layers


def arithmetic_of_features(network: Network) -> Arithmetic:
    """The arithmetic of a network's features: its own, or floats' where it computes in 16 bits."""
    return FLOAT if network.arithmetic.stores else network.arithmetic


def _copy(known: Mapping[str, Array], own: Mapping[str, Array]) -> None:
    """Copies the arrays of a network to those of its first layers, in their order."""
    for (name, value), array in zip(known.items(), own.values(), strict=False):
        if array.shape != value.shape:
            raise ValueError(
                f"Features: found {name} of shape {value.shape}, expected {array.shape} for images "
                "of this size; take taps in front of it, or images of the network's own size"
            )
        np.copyto(array, value)


def _cut(network: Network, taps: Sequence[str]) -> Iterator[list[Layer]]:
    """Copies of the layers up to each tap, from the one behind the tap before."""
    names = [name for name, _ in network.body.named_layers()]
    unknown = [tap for tap in taps if tap not in names]
    if unknown or not taps or list(taps) != sorted(set(taps), key=names.index):
        raise ValueError(
            f"Features: found taps {', '.join(taps) or 'none'}, expected layers of the network in "
            f"their order, of {', '.join(names)}"
        )
    start = 0
    for tap in taps:
        stop = names.index(tap) + 1
        yield [copy.deepcopy(layer) for layer in network.body.layers[start:stop]]
        start = stop
