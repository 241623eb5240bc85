"""Several micro-batches in one pass through a network, with the bits of one after another.

Calls take longer than numbers in a network of a few thousand parameters: a pass over 25 images
takes most of its time to find its way. So a layer may be given the rows of k micro-batches at once,
n of each. What it computes for each row alone it computes for all; where rows meet, in sums over a
micro-batch, there is an axis of length k: a product is k products of the same shapes as before, so
that BLAS adds in the same order.

Not every layer can: convolutions are slower so, since a stack of images leaves the cache; batch
normalisation and dropout know one micro-batch at a time.
"""

from __future__ import annotations

import copy

import numpy as np

from distnet.nn.layer import Layer
from distnet.nn.layers.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from distnet.nn.layers.linear import Flatten, Linear
from distnet.nn.network import Network
from distnet.nn.own_layers import is_own
from distnet.nn.sequential import Sequential

# A layer that is derived from one of these may do something else with its rows.
STACKABLE = frozenset({Sequential, Linear, Flatten, ReLU, LeakyReLU, Sigmoid, Tanh})


def is_stackable(network: Network) -> bool:
    """Whether `stacked` takes the network: all of its layers can, in plain arithmetic."""
    if network.arithmetic.rounds or network.arithmetic.stores or network.parameters.are_joined:
        return False
    if is_own(network):  # it may hold what cannot be copied
        return False
    layers = [network.body, *network.body.layers, *network.body.leaves()]
    return all(type(layer) in STACKABLE and not _is_patched(layer) for layer in layers)


def _is_patched(layer: Layer) -> bool:
    """Whether this very layer computes something else than its kind, which no copy would do."""
    return "forward" in vars(layer) or "backward" in vars(layer)


def stacked(network: Network, rows: int, most: int) -> Network:
    """A network with the same parameters that takes up to `most` micro-batches of `rows` at once.

    Its inputs and outputs have k * rows rows, and `parameters.grads` is `(most, P)`, of which
    backward fills the first k. `parameters.refresh` is to be called after a change of the values.
    """
    twin, own = copy.deepcopy(network), network.parameters
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
