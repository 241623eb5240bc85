"""Containers in which an array is used more than once: residual sums and parallel branches.

The gradient of an array that several layers read is the sum of theirs. No layer writes into what
another still needs: every path gets the same input, and its last gradient is added into an array of
the container.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import Arithmetic, portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn.layer import Layer
from distnet.nn.memory import Memory
from distnet.nn.parameters import Parameter, Statistic
from distnet.nn.sequential import Sequential


class _Paths(Layer):
    """Layers that read the same input; a path without layers is the identity."""

    def __init__(self, paths: Sequence[Iterable[Layer]]) -> None:
        super().__init__()
        self.paths = [Sequential(layers) for layers in paths]
        if type(self).__init__.__module__ == __name__:  # not that of a user's own block
            self.made_with = tuple(path.layers for path in self.paths), {}

    def compute_in(self, arithmetic: Arithmetic) -> None:
        super().compute_in(arithmetic)
        for path in self.paths:
            path.compute_in(arithmetic)

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        for i, path in enumerate(self.paths, start=1):
            yield from ((f"path{i}.{name}", parameter) for name, parameter in path.parameters())

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        for i, path in enumerate(self.paths, start=1):
            yield from ((f"path{i}.{name}", statistic) for name, statistic in path.statistics())

    @property
    def multiply_adds(self) -> int:
        return sum(path.multiply_adds for path in self.paths)

    def update_statistics(self) -> None:
        super().update_statistics()
        for path in self.paths:
            path.update_statistics()

    def named_leaves(self) -> Iterator[tuple[str, Layer]]:
        for i, path in enumerate(self.paths, start=1):
            yield from ((f"path{i}.{name}", leaf) for name, leaf in path.named_leaves())

    def use(self, memory: Memory) -> None:
        super().use(memory)
        for i, path in enumerate(self.paths):
            path.use(memory.for_inner(0) if i else memory.for_first())

    def refresh(self) -> None:
        super().refresh()
        for path in self.paths:
            path.refresh()

    def _build_paths(self, shape: Shape, dtype: DTypeLike) -> list[Shape]:
        self.shape = super().build(shape, dtype)
        return [path.build(shape, dtype) for path in self.paths]

    def _add_gradients(
        self, dys: Sequence[Array], out: Array | None, need_dx: bool
    ) -> Array | None:
        """Runs all paths backward, each with its gradient; the sum of what they return.

        The first path's gradient becomes the sum, unless it lies in `dys[0]`, the caller's.
        """
        dx: Array | None = None
        for path, dy in zip(self.paths, dys, strict=True):
            part = path.backward(dy, out if dx is None else None, need_dx)
            if part is None or not need_dx:
                continue
            if dx is not None:
                np.add(dx, part, out=dx)
            elif not np.may_share_memory(part, dy):
                dx = part
            else:
                dx = self.input_gradient((len(dy), *self.shape), out)
                np.copyto(dx, part)
        return dx


@portable
class Residual(_Paths):
    """y = f(x) + s(x), with s(x) = x unless `shortcut` layers are given (He et al. 2015, eq. 1, 2).

    `layers` make up f, the residual; both sides must have the same output shape.
    """

    kind = "residual"

    def __init__(self, layers: Iterable[Layer], shortcut: Iterable[Layer] = ()) -> None:
        super().__init__([layers, shortcut])

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        residual, shortcut = self._build_paths(shape, dtype)
        if residual != shortcut:
            raise ValueError(f"Residual: found shapes {residual} + {shortcut}, expected equal ones")
        self.output_shape = residual
        return residual

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output((len(x), *self.output_shape), out)
        layers, shortcut = self.paths
        # y is free for the residual, where nobody reads that again in backward.
        residual = layers.forward(x, None if layers.needs_output else y, at)
        return np.add(residual, shortcut.forward(x, None, at), out=y)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        return self._add_gradients([dy, dy], out, need_dx)


@portable
class Branches(_Paths):
    """Parallel layers on one input, their channels side by side (inception; Szegedy et al. 2014).

    Each of `branches` is a list of layers; the outputs `(N, C_i, H, W)` have one H x W.
    """

    kind = "branches"

    def __init__(self, *branches: Iterable[Layer]) -> None:
        super().__init__(branches)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        shapes = self._build_paths(shape, dtype)
        if len({each[1:] for each in shapes}) != 1:
            raise ValueError(f"Branches: found shapes {shapes}, expected one height and width")
        stops = np.cumsum([each[0] for each in shapes])
        self.parts = [slice(stop - each[0], stop) for stop, each in zip(stops, shapes, strict=True)]
        self.output_shape = (int(stops[-1]), *shapes[0][1:])
        return self.output_shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output((len(x), *self.output_shape), out)
        for path, part in zip(self.paths, self.parts, strict=True):
            np.copyto(y[:, part], path.forward(x, None, at))
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        return self._add_gradients([dy[:, part] for part in self.parts], out, need_dx)
