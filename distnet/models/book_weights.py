"""Weights as the book publishes them, and as its `save_params` writes them: W1, b1, W2, b2, ...

Layouts are the same there and here: conv `(F, C, KH, KW)`, linear `(in, out)` over (C, H, W).
Called by `convert`, and by experiments that begin with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.models import MODELS
from distnet.models.book import DIGITS

Settings = dict[str, Any]  # options of a model, by name


def _sizes_of_simple_convnet(weights: Sequence[Array]) -> Settings:
    filters, _, kernel, _ = weights[0].shape
    return {"filters": filters, "kernel": kernel, "hidden_size": weights[1].shape[1]}


# The dimensions of W1, W2, ... tell the networks of the book apart; their shapes say which sizes
# the reader has chosen.
NETWORKS: dict[tuple[int, ...], tuple[str, Callable[[Sequence[Array]], Settings]]] = {
    (2, 2): ("two_layer", lambda weights: {"hidden_size": weights[0].shape[1]}),
    (2, 2, 2): (
        "three_layer",
        lambda weights: {"hidden_sizes": [w.shape[1] for w in weights[:2]]},
    ),
    (4, 2, 2): ("simple_convnet", _sizes_of_simple_convnet),
    (4, 4, 4, 4, 4, 4, 2, 2): ("deep_convnet", lambda weights: {}),
}


def from_book(arrays: Mapping[str, Array], source: str) -> tuple[Settings, dict[str, Array]]:
    """The model with its sizes and the parameters by distnet's names, from W1, b1, W2, b2, ...

    The first is what `--model` and the options of that network would say: `{"model": "two_layer",
    "hidden_size": 50}`. Raises ValueError, naming the source, unless the arrays are those of a
    network of the book, for digits of 28 x 28.
    """
    count = len(arrays) // 2
    keys = [f"{letter}{i}" for i in range(1, count + 1) for letter in "Wb"]
    weights = [arrays[key] for key in keys[::2]] if sorted(keys) == sorted(arrays) else []
    dims = tuple(weight.ndim for weight in weights)
    if dims not in NETWORKS:
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"{source}: found {found!a:.200}, expected W1, b1, W2, ... of a network of the book"
        )
    dtype = np.result_type(*arrays.values()).newbyteorder("=")  # of all, with every bit of each
    arrays = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
    weights = [arrays[key] for key in keys[::2]]
    model, sizes = NETWORKS[dims]
    settings, num_classes = sizes(weights), arrays[keys[-1]].size
    try:
        network = MODELS[model](DIGITS, num_classes, **settings)
        slots = network.parameters.slots
        params = {slot.name: arrays[key] for slot, key in zip(slots, keys, strict=True)}
        if model == "deep_convnet":
            params |= without_dropout(params["linear2.weight"], params["linear2.bias"])
        network.parameters.load(params)
    except ValueError as error:
        raise ValueError(f"{source}: {error}, as in the book's {model}") from None
    return {"model": model} | settings, params


def without_dropout(weight: Array, bias: Array) -> dict[str, Array]:
    """The last layer of the book's deep network for inputs h that no dropout has scaled.

    The book scales by 1 - 0.5 at test time, before its last layer and again after it:
    0.5 ((0.5 h) W + b) = h (0.25 W) + 0.5 b. distnet scales in training instead, and drops no
    logits. Factors are powers of two, so no bit is lost.
    """
    quarter, half = weight.dtype.type(0.25), bias.dtype.type(0.5)
    return {"linear2.weight": quarter * weight, "linear2.bias": half * bias}
