"""Who owns the arrays of a layer: one place to ask, by how long their contents must live.

* `constant`: as long as the layer;
* `array`, `once`: from a forward pass to its backward pass, for each batch size;
* `gradient`: from one layer's backward pass to that of the layer in front, in slots that the layers
  of a network share;
* `temporary`, `scratch`: during one call of one layer, overlaid by all layers of a network.

Of the batch sizes the two that were used last are kept: micro-batches are of one size, but for a
short one at the end of a batch. What a layer never asks for is never there: evaluation has no
gradients, so that it has no memory for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.nn import layout
from distnet.nn.scratch import Scratch

BATCH_SIZES_KEPT = 2

T = TypeVar("T")


class Pool:
    """What the layers of a network share: scratch memory, and numbered slots for gradients."""

    def __init__(self, scratch: Scratch | None = None) -> None:
        self.scratch = scratch or Scratch()
        self._slots: dict[int, Scratch] = {}

    def slot(self, number: int) -> Scratch:
        """The memory that all gradients with that number overlay."""
        return self._slots.setdefault(number, Scratch())


class Memory:
    """The arrays of one layer. A layer outside of a network has a pool of its own.

    slot: where the gradient of the layer's input lies. Layers in a chain take turns on two slots,
    since each reads what the layer behind it wrote. The layers of a container have slots from
    `inner_slot` on: what the container reads is still needed while they run.
    """

    def __init__(self, pool: Pool | None = None, slot: int = 0, inner_slot: int = 1) -> None:
        self._pool, self._slot, self._inner_slot = pool or Pool(), slot, inner_slot
        self.scratch = self._pool.scratch
        self._constants: dict[str, Array] = {}
        self._of_batch: dict[int, dict[str, Any]] = {}  # the batch size used last comes last

    def for_first(self) -> Memory:
        """For the layer in a container whose input gradient is that of the container."""
        return Memory(self._pool, self._slot, self._inner_slot + 2)

    def for_inner(self, turn: int) -> Memory:
        """For another layer in a container; its gradient goes to the slot of this turn, 0 or 1."""
        return Memory(self._pool, self._inner_slot + turn, self._inner_slot + 2)

    def for_in_place(self) -> Memory:
        """For a layer in a container that writes its input gradient over that of its output."""
        return Memory(Pool(self.scratch))

    def constant(self, name: str, shape: Shape, dtype: DTypeLike) -> Array:
        """An array for all batch sizes, such as parameters in another order; zeros at first."""
        found = self._constants.get(name)
        if found is None or found.shape != shape:
            found = self._constants[name] = np.zeros(shape, dtype)
        return found

    def once(self, n: int, name: str, make: Callable[[], T]) -> T:
        """What `make()` returns, made once for a batch of n and kept with its arrays."""
        kept = self._of(n)
        if name not in kept:
            kept[name] = make()
        return cast(T, kept[name])

    def array(self, name: str, shape: Shape, dtype: DTypeLike, fill: float | None = None) -> Array:
        """An array `(N, ...)` whose contents stay until the layer writes into it again.

        It is filled with `fill` when it is made.
        """
        kept = self._of(shape[0])
        found: Array | None = kept.get(name)
        if found is None or found.shape != shape:
            found = kept[name] = layout.empty(shape, dtype)
            if fill is not None:
                found[...] = fill
        return found

    def gradient(self, shape: Shape, dtype: DTypeLike) -> Array:
        """An array `(N, ...)` for the gradient of the layer's input, shared with other layers.

        Its contents stay until the layer in front of this one has run backward.
        """
        kept, slot = self._of(shape[0]), self._pool.slot(self._slot)
        found: Array | None = kept.get("gradient")
        if found is None or found.shape != shape or not slot.holds(found):
            (flat,) = slot.take(math.prod(shape), dtype=dtype)
            found = kept["gradient"] = layout.shaped(flat, shape)
        return found

    def temporary(self, shape: Shape, dtype: DTypeLike) -> Array:
        """An array for this call of the layer, uninitialised, in the scratch memory.

        The next one overlays it: who needs several at once takes them together from `scratch`.
        """
        (flat,) = self.scratch.take(math.prod(shape), dtype=dtype)
        return layout.shaped(flat, shape)

    def _of(self, n: int) -> dict[str, Any]:
        """What is kept for a batch of n; makes room for it if there is nothing yet."""
        kept = self._of_batch.pop(n, None)
        if kept is None:
            kept = {}
            while len(self._of_batch) >= BATCH_SIZES_KEPT:
                del self._of_batch[next(iter(self._of_batch))]
        self._of_batch[n] = kept
        return kept
