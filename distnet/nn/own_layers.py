"""Layers of a user's own in a chain: what they hand on is checked, and kept apart.

Ours keep the contract in `distnet.nn.layer`, which says whose memory is whose. One that does not
would change what another layer still needs, and the gradients would be wrong without a word: by
returning what it was given, `return dy`, by keeping what it returned, or by writing into `x`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from inspect import signature
from typing import TypeGuard, TypeVar

import numpy as np

from distnet.base.arrays import Array, Shape, read_only
from distnet.nn.layer import Layer
from distnet.nn.memory import Memory

L = TypeVar("L", bound=Layer)


def is_ours(kind: Callable[..., object]) -> bool:
    """Whether a class or function is part of distnet."""
    return kind.__module__.startswith("distnet.")


def is_own(thing: object) -> bool:
    """Whether a user wrote the class of a layer, or of anything else."""
    return not is_ours(type(thing))


def held_by(layer: Layer) -> list[Layer]:
    """The layers among the attributes of one, alone or in a list."""
    found: list[object] = []
    for name, value in vars(layer).items():
        is_derived = isinstance(getattr(type(layer), name, None), cached_property)
        if name != "_held" and not is_derived:
            found += value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(each for each in found if isinstance(each, Layer)))


def held_in(body: Layer) -> dict[Layer, list[Layer]]:
    """Those that layers of a user's own hold for themselves alone, by who holds them.

    They are no leaves of `body`, so the network hears of them in no other way. What such a layer
    holds may be a container: what is in that counts as well.
    """
    leaves, alone = set(body.leaves()), {}
    for each in _all_in(body):
        if is_own(each) or each not in leaves:
            alone[each] = [layer for layer in held_by(each) if leaves.isdisjoint(layer.leaves())]
    return {each: held for each, held in alone.items() if held}


def own_in(body: Layer) -> list[str]:
    """The names of the layers of a user's own: of a leaf its place, of another its class."""
    names = {leaf: name for name, leaf in body.named_leaves()}
    return [names.get(each) or type(each).__name__ for each in _all_in(body) if is_own(each)]


def _all_in(body: Layer) -> list[Layer]:
    """The layers of `body` and those that they hold, containers too."""
    leaves, found = set(body.leaves()), [body]
    for each in found:
        if is_own(each) or each not in leaves:
            found += [layer for layer in held_by(each) if layer not in found]
    return found


def computes_as(layer: Layer | None, kind: type[L]) -> TypeGuard[L]:
    """Whether a layer is of that kind, and if its class is derived from it, computes as that."""
    if not isinstance(layer, kind):
        return False
    own = type(layer)
    return own.forward is kind.forward and own.backward is kind.backward


def check_calls(own: object, base: type, *names: str) -> None:
    """Raises ValueError for a method of a user's own that cannot be called as that of `base`."""
    for name in names:
        found, expected = (signature(getattr(kind, name)) for kind in (type(own), base))
        try:
            found.bind(*expected.parameters)
        except TypeError:
            theirs, ours = (", ".join(each.parameters) for each in (found, expected))
            raise ValueError(
                f"{type(own).__name__}.{name}: found arguments ({theirs}), expected ({ours})"
            ) from None


def check_shape(shape: object) -> None:
    """Raises ValueError for what `build` may not return."""
    if not isinstance(shape, tuple) or not all(isinstance(n, int | np.integer) for n in shape):
        raise ValueError(
            f"build returned {shape!r:.60}, expected the shape of one output, a tuple of whole "
            "numbers"
        )


def keeps_output(layer: Layer) -> bool:
    """Whether backward may read what forward wrote: of an own layer unless its class says no."""
    if layer.needs_output or not is_own(layer):
        return layer.needs_output
    own = (base for base in type(layer).__mro__ if not is_ours(base))
    return not any("needs_output" in vars(base) for base in own)


def shown(memory: Memory, name: str, x: Array) -> Array:
    """`x` for an own layer to read, see `read_only`."""
    return memory.views(len(x), name, (x,), lambda: read_only(x))


def checked_output(name: str, layer: Layer, y: object, x: Array, out: Array | None) -> Array:
    """What forward returned for `x`, in memory of its own; raises ValueError for another shape.

    out: what it was given to write into, which may be `x`.
    """
    shape = len(x), *layer.output_shape
    return _apart(f"{name}: forward", layer, "own output", y, shape, x, out)


def checked_gradient(name: str, layer: Layer, dx: object, dy: Array, out: Array | None) -> Array:
    """As `checked_output`, for what backward returned for `dy`, where it was asked for dx."""
    shape = len(dy), *layer.input_shape
    return _apart(f"{name}: backward", layer, "own gradient", dx, shape, dy, out)


def _apart(
    who: str, layer: Layer, name: str, result: object, shape: Shape, given: Array, out: Array | None
) -> Array:
    if not isinstance(result, np.ndarray) or result.shape != shape:
        found = result.shape if isinstance(result, np.ndarray) else type(result).__name__
        raise ValueError(f"{who} returned {found}, expected an array of shape {shape}")
    if result is out:
        return result
    if result.flags.writeable and not np.may_share_memory(result, given):
        return result
    copy = layer.memory.array(name, result.shape, result.dtype)
    np.copyto(copy, result)
    return copy
