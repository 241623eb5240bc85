"""Parameters and running statistics as named views of flat vectors.

A layer declares `Parameter`s and `Statistic`s when it is built; `flatten_parameters` and
`flatten_statistics` give each of them its place in one contiguous vector, in forward order. After
that, `value` and `grad` are views: the optimizer, the reducer, the checkpoint and the hash work on
the vectors and never see a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape

Initializer = Callable[[np.random.Generator, Shape], Array]


@dataclass(eq=False)
class Parameter:
    """An array that is trained: its shape, how it starts, whether weight decay applies to it."""

    shape: Shape
    init: Initializer
    decays: bool = True
    value: Array = field(init=False, repr=False)
    grad: Array = field(init=False, repr=False)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(eq=False)
class Statistic:
    """A running average that evaluation uses, float64; `batch` is what one micro-batch adds to it.

    Contributions are weighted by the micro-batch's share of the global batch, so their sum over all
    micro-batches is the average over the global batch. It is summed like the gradients.
    """

    shape: Shape
    start_value: float
    momentum: float
    value: Array = field(init=False, repr=False)
    batch: Array = field(init=False, repr=False)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Slot:
    """The place of one named array in a flat vector: `vector[start:stop].reshape(shape)`."""

    name: str
    start: int
    stop: int
    shape: Shape


def slots(named: Sequence[tuple[str, Parameter | Statistic]]) -> list[Slot]:
    """The places of the named arrays when laid end to end."""
    places, start = [], 0
    for name, item in named:
        places.append(Slot(name, start, start + item.size, item.shape))
        start += item.size
    return places


def flatten_parameters(
    named: Sequence[tuple[str, Parameter]], dtype: DTypeLike
) -> tuple[Array, Array]:
    """Allocates the value and gradient vectors and makes every parameter a view of them."""
    size = sum(parameter.size for _, parameter in named)
    values, grads = np.zeros(size, dtype), np.zeros(size, dtype)
    for slot, (_, parameter) in zip(slots(named), named, strict=True):
        parameter.value = values[slot.start : slot.stop].reshape(slot.shape)
        parameter.grad = grads[slot.start : slot.stop].reshape(slot.shape)
    return values, grads


def flatten_statistics(named: Sequence[tuple[str, Statistic]]) -> tuple[Array, Array]:
    """Allocates the running and the per-micro-batch vectors of statistics, float64."""
    size = sum(statistic.size for _, statistic in named)
    values, batch = np.zeros(size), np.zeros(size)
    for slot, (_, statistic) in zip(slots(named), named, strict=True):
        statistic.value = values[slot.start : slot.stop].reshape(slot.shape)
        statistic.batch = batch[slot.start : slot.stop].reshape(slot.shape)
        statistic.value[...] = statistic.start_value
    return values, batch
