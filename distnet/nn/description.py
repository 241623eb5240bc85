"""A network as data that JSON can hold, and back: what a file says so that it can be opened.

A layer is described by its class and its arguments (`Layer.arguments`); a container by its layers.
Layers of a user's own are found by their names, when the module that defines them was imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, Portable, arithmetic_of
from distnet.base.arrays import Shape
from distnet.nn.layer import Layer
from distnet.nn.network import Network
from distnet.nn.own_layers import is_ours
from distnet.nn.sequential import Sequential

Description = dict[str, Any]
BITS = "portable_bits"  # the key for those of portable arithmetic
ARITHMETIC = "arithmetic"  # the key for the name of one that is neither this nor float32
LAYER = "layer"  # the key that marks a described layer


def describe(network: Network) -> Description:
    """What `rebuild` makes an equal network of, but for its values; raises ValueError."""
    description: Description = {
        "input_shape": list(network.input_shape),
        "dtype": network.parameters.dtype.name,
        "layers": [_described(layer) for layer in network.body.layers],
        **({"frozen": list(network.frozen)} if network.frozen else {}),
    }
    if network.arithmetic.rounds:
        description[BITS] = network.arithmetic.bits
    elif network.arithmetic.stores:
        description[ARITHMETIC] = network.arithmetic.name
    return description


def rebuild(description: Mapping[str, Any], num_values: int | None = None) -> Network:
    """The network that was described, all parameters zero; raises ValueError for what is none.

    num_values: how many parameters it has to have, checked before there is memory for them.
    """
    try:
        shape = tuple(int(size) for size in description["input_shape"])
        if num_values is not None:
            _check_size(_layers(description), shape, num_values)
        network = Network(
            _layers(description),
            shape,
            seed=None,
            dtype=_dtype(description["dtype"]),
            arithmetic=_arithmetic(description),
        )
        if frozen := description.get("frozen"):
            network.freeze(*map(str, frozen))
        return network
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"found no description of a network ({reason:.200})") from None


def _arithmetic(description: Mapping[str, Any]) -> Arithmetic:
    if BITS in description:
        return Portable(int(description[BITS]))
    return arithmetic_of(str(description.get(ARITHMETIC, FLOAT.name)))


def _layers(description: Mapping[str, Any]) -> list[Layer]:
    return [_layer(each) for each in description["layers"]]


def _check_size(layers: list[Layer], shape: Shape, expected: int) -> None:
    body = Sequential(layers)
    body.build(shape)
    found = sum(parameter.size for _, parameter in body.parameters())
    if found != expected:
        raise ValueError(f"found a network of {found} parameters, expected {expected}")


def _dtype(name: object) -> np.dtype[Any]:
    if name not in ("float32", "float64"):
        raise ValueError(f"dtype: found {name!r:.60}, expected float32 or float64")
    return np.dtype(str(name))


def _described(layer: Layer) -> Description:
    args, kwargs = layer.arguments()
    kind = type(layer)
    if not is_ours(kind) and any(is_ours(k) and k.__name__ == kind.__name__ for k in _kinds(Layer)):
        raise ValueError(
            f"{kind.__name__}: found a layer of your own with the name of one of distnet's, which "
            "is what a file would be read as, expected another name"
        )
    return {
        LAYER: kind.__name__,
        "args": [_as_json(value, layer) for value in args],
        "kwargs": {name: _as_json(value, layer) for name, value in kwargs.items()},
    }


def _as_json(value: Any, layer: Layer) -> Any:
    """An argument as JSON has it."""
    if isinstance(value, Layer):
        return _described(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [_as_json(each, layer) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"{type(layer).__name__}: found an argument of type {type(value).__name__}, which a file "
        "cannot hold; expected numbers, text and layers"
    )


def _layer(description: Mapping[str, Any]) -> Layer:
    name = description[LAYER]
    # A class of two bases comes up once for each; one that a notebook defines again, as the newest.
    found_at = {(k.__module__, k.__qualname__): k for k in _kinds(Layer) if k.__name__ == name}
    kinds = list(found_at.values())
    own = [kind for kind in kinds if is_ours(kind)]
    if len(own or kinds) != 1:
        found = "no layer" if not kinds else f"{len(kinds)} layers"
        raise ValueError(
            f"found {found} called {name!r:.60}, expected one; import the module that defines it"
        )
    (kind,) = own or kinds
    kwargs = {key: _value(value) for key, value in description["kwargs"].items()}
    return kind(*(_value(value) for value in description["args"]), **kwargs)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return _layer(value)
    if isinstance(value, list):
        values = [_value(each) for each in value]
        return values if any(isinstance(each, Layer) for each in values) else tuple(values)
    return value


def _kinds(base: type[Layer]) -> Iterator[type[Layer]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)
