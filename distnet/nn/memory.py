"""Who owns the arrays of a layer: one place to ask, by how long their contents must live.

* `constant`: as long as the layer;
* `array`, `once`: from a forward pass to its backward pass, for each batch size;
* `gradient`: from one layer's backward pass to that of the layer in front, in slots that the layers
  of a network share;
* `temporary`, `scratch`: during one call of one layer, overlaid by all layers of a network;
* `operand`: the same, for one rounded operand, which the other two do not overlay.

Of the batch sizes the two that were used last are kept: micro-batches are of one size, but for a
short one at the end of a batch. What a layer never asks for is never there: evaluation has no
gradients, so that it has no memory for them.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.nn import layout
from distnet.nn.scratch import Scratch

BATCH_SIZES_KEPT = 2

T = TypeVar("T")


class Pool:
    """What the layers of a network share: scratch memory, and numbered slots for gradients."""

    def __init__(self) -> None:
        self.users: WeakSet[Memory] = WeakSet()
        self.scratch = Scratch(self._give_up_views)
        self.operands = Scratch(self._give_up_views)
        self.slots: dict[int, Scratch] = {}
        self.private_slots = itertools.count(-1, -1)

    def slot(self, number: int) -> Scratch:
        """The memory that all gradients with that number overlay."""
        if number not in self.slots:
            self.slots[number] = Scratch(self._give_up_views)
        return self.slots[number]

    def _give_up_views(self) -> None:
        """Nobody keeps what is too small alive."""
        for memory in self.users:
            memory.give_up_views()


class Memory:
    """The arrays of one layer. A layer outside of a network has a pool of its own.

    slot: where the gradient of the layer's input lies. Layers in a chain take turns on two slots,
    since each reads what the layer behind it wrote. The layers of a container have slots from
    `inner_slot` on: what the container reads is still needed while they run.
    """

    def __init__(self, pool: Pool | None = None, slot: int = 0, inner_slot: int = 1) -> None:
        self.pool, self._slot, self._inner_slot = pool or Pool(), slot, inner_slot
        self.scratch = self.pool.scratch
        self.pool.users.add(self)
        self._constants: dict[str, Array] = {}
        self._of_batch: dict[int, _Kept] = {}  # the batch size used last comes last
        self._last: tuple[int, _Kept] | None = None  # that one

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        """A copy or a pickle holds no arrays: they are made again, in a pool of its own."""
        return Memory, ()

    def for_first(self) -> Memory:
        """For the layer in a container whose input gradient is that of the container."""
        return Memory(self.pool, self._slot, self._inner_slot + 2)

    def for_inner(self, turn: int) -> Memory:
        """For another layer in a container; its gradient goes to the slot of this turn, 0 or 1."""
        return Memory(self.pool, self._inner_slot + turn, self._inner_slot + 2)

    def for_in_place(self) -> Memory:
        """For a layer in a container that writes its input gradient over that of its output."""
        return Memory(self.pool, next(self.pool.private_slots))

    def constant(self, name: str, shape: Shape, dtype: DTypeLike) -> Array:
        """An array for all batch sizes, such as parameters in another order; zeros at first."""
        found = self._constants.get(name)
        if found is None or found.shape != shape:
            found = self._constants[name] = np.zeros(shape, dtype)
        return found

    def once(self, n: int, name: str, make: Callable[[], T]) -> T:
        """What `make()` returns, made once for a batch of n and kept with its arrays."""
        made = self._kept(n).made
        if name not in made:
            made[name] = make()
        found: T = made[name]
        return found

    def array(self, name: str, shape: Shape, dtype: DTypeLike, fill: float | None = None) -> Array:
        """An array `(N, ...)` whose contents stay until the layer writes into it again.

        It is filled with `fill` when it is made.
        """
        made = self._kept(shape[0]).made
        found: Array | None = made.get(name)
        if found is None or found.shape != shape:
            found = made[name] = layout.empty(shape, dtype)
            if fill is not None:
                found[...] = fill
        return found

    def gradient(self, shape: Shape, dtype: DTypeLike) -> Array:
        """An array `(N, ...)` for the gradient of the layer's input, shared with other layers.

        Its contents stay until the layer in front of this one has run backward.
        """
        return self.views(shape[0], ("gradient", shape), (), lambda: self._take(shape, dtype))

    def operand(self, shape: Shape) -> Array:
        """An array of float64 for this call of the layer, beside its scratch memory."""
        key = "operand", shape
        return self.views(shape[0], key, (), lambda: self._take_operand(shape))

    def temporary(self, shape: Shape, dtype: DTypeLike) -> Array:
        """An array for this call of the layer, uninitialised. The next one overlays it."""
        (array,) = self.temporaries((shape, dtype))
        return array

    def temporaries(self, *wanted: tuple[Shape, DTypeLike]) -> list[Array]:
        """Several such arrays, by shape and dtype, that do not overlay each other.

        The first shape is `(N, ...)`.
        """
        return self.views(wanted[0][0][0], wanted, (), lambda: self._overlay(wanted))

    def views(self, n: int, name: Hashable, of: tuple[object, ...], make: Callable[[], T]) -> T:
        """What `make()` returns: views of the arrays `of` and of memory that layers share.

        They are made again for others, and after that memory has moved.
        """
        kept = self._kept(n)
        entry = kept.views.get(name)
        if entry is None or not all(map(operator.is_, entry[1], of)):
            entry = kept.views[name] = make(), of
        found: T = entry[0]
        return found

    def give_up_views(self) -> None:
        """Forgets what points into shared memory."""
        for kept in self._of_batch.values():
            kept.views.clear()

    def _overlay(self, wanted: tuple[tuple[Shape, DTypeLike], ...]) -> list[Array]:
        sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in wanted]
        flat = self.scratch.take(*sizes, dtype=np.uint8)
        return [
            layout.shaped(part.view(dtype), shape)
            for part, (shape, dtype) in zip(flat, wanted, strict=True)
        ]

    def _take(self, shape: Shape, dtype: DTypeLike) -> Array:
        (flat,) = self.pool.slot(self._slot).take(math.prod(shape), dtype=dtype)
        return layout.shaped(flat, shape)

    def _take_operand(self, shape: Shape) -> Array:
        (flat,) = self.pool.operands.take(math.prod(shape), dtype=np.float64)
        return layout.shaped(flat, shape)

    def _kept(self, n: int) -> _Kept:
        """What is kept for a batch of n; makes room for it if there is nothing yet."""
        if self._last is not None and self._last[0] == n:
            return self._last[1]
        kept = self._of_batch.pop(n, None)
        if kept is None:
            kept = _Kept()
            while len(self._of_batch) >= BATCH_SIZES_KEPT:
                del self._of_batch[next(iter(self._of_batch))]
        self._of_batch[n] = kept
        self._last = n, kept
        return kept


class _Kept:
    """What a layer keeps for one batch size."""

    def __init__(self) -> None:
        self.made: dict[str, Any] = {}
        self.views: dict[Hashable, tuple[Any, tuple[object, ...]]] = {}
