"""The fully connected layer (the book's Affine, section 5.6) and Flatten."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import grid_unit, portable, to_grid
from distnet.base.arrays import Array, Shape
from distnet.base.blas import terms_of_small_products
from distnet.base.keys import MicroBatch
from distnet.nn import arguments, blocking
from distnet.nn.blocking import Step
from distnet.nn.initializers import checked_init, constant, weight_initializer
from distnet.nn.layer import Layer
from distnet.nn.parameters import Parameter

_PRODUCTS_BYTES = 512 * 1024  # of the groups that are added up at a time: they stay in the cache
_FEWEST = 8  # features of a group: BLAS copies the weights faster than it multiplies by fewer


class _Groups(NamedTuple):
    """How the features are cut into groups for one batch size."""

    number: int  # P
    are_summed: bool  # whether forward works by groups, too, and adds up their products
    at_a_time: int  # how many groups are multiplied before that


@portable
class Linear(Layer):
    """y = x W + b for x `(N, K)` or images `(N, C, H, W)`, W `(K, out)`, b `(out,)`.

    Images are flattened in (C, H, W) order, as in the book. The product is the sum of P small ones
    over runs of features, which BLAS computes without copies of its own.
    """

    kind = "linear"
    rows = 0  # of a micro-batch, where several come at once, see `nn.stacks`; 0: one, of any size

    def __init__(self, out_features: int, *, init: str | float = "he", bias: bool = True) -> None:
        super().__init__()
        self.out_features = arguments.whole("Linear", "out_features", out_features)
        self.init = checked_init("Linear", init)
        self.has_bias = bias

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        self.input_shape, self._is_rounded = shape, False
        self.in_features = int(np.prod(shape))
        init = weight_initializer(self.init, self.in_features)
        self.weight = Parameter((self.in_features, self.out_features), init)
        self.bias = Parameter((self.out_features,), constant(0), decays=False)
        return (self.out_features,)

    @property
    def multiply_adds(self) -> int:
        return self.weight.size

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "weight", self.weight
        if self.has_bias:
            yield "bias", self.bias

    def groups(self, num_rows: int) -> _Groups:
        """How the features are cut for a batch of that size."""
        n = self.rows or num_rows
        out, p = self.out_features, self._num_groups(n)
        self.arithmetic.check_terms("Linear", max(n, out, self.in_features))
        # To add up a group takes n out numbers, beside the K / P out weights that it is made of.
        are_summed = p > 1 and n <= 2 * self.in_features // p
        at_a_time = min(p, max(1, _PRODUCTS_BYTES // (n * out * self.dtype.itemsize)))
        return _Groups(p, are_summed, at_a_time)

    def inbox(self, n: int) -> Array | None:
        """The pixels of one channel are wanted as vectors, not in the engine's memory order.

        (Images of more channels come from layers that work faster in that order.) Where they are
        rounded, that makes a copy in any case.
        """
        if len(self.input_shape) != 3 or self.input_shape[0] > 1 or self.arithmetic.rounds:
            return None
        shape = n, *self.input_shape
        return self.memory.once(n, "inbox", lambda: self._own_vectors(n).reshape(shape))

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        x, w = self._as_vectors(x), self._weight()
        y = self.output((len(x), self.out_features), out)
        self.x, self.w = x, w
        # Between small products it takes longer to find the way than to multiply.
        of = x, w, y, self.bias.value if self.has_bias else None
        name, make = ("forward", terms_of_small_products()), partial(self.forward_steps, y)
        blocking.run(self.memory.views(len(x), name, of, make))
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dy = self.operand(dy)
        dx = self.input_gradient((len(dy), *self.input_shape), out) if need_dx else None
        of = self.x, self.w, dy, dx, self.weight.grad, self.bias.grad if self.has_bias else None
        name = "backward", terms_of_small_products()
        make = partial(self.backward_steps, dy, dx)
        blocking.run(self.memory.views(len(dy), name, of, make))
        return dx

    def refresh(self) -> None:
        self._is_rounded = False

    def _weight(self) -> Array:
        """W as an operand of products."""
        weight = self.computing_weight()
        if not self.arithmetic.rounds:
            return weight
        rounded = self.memory.constant("weight", self.weight.shape, self.dtype)
        if not self._is_rounded:
            to_grid(weight, grid_unit(weight, self.arithmetic.bits), rounded)
            self._is_rounded = True
        return rounded

    def computing_weight(self) -> Array:
        """What inputs are multiplied by: the weight, unless a layer makes something of it."""
        return self.weight.value

    def forward_steps(self, y: Array) -> list[Step]:
        """What makes y of the last input, as often as it is wanted on these arrays."""
        add_bias = [partial(np.add, y, self.bias.value, out=y)] if self.has_bias else []
        return [*self._product_steps(self.x, self.w, y), *add_bias]

    def _product_steps(self, x: Array, w: Array, y: Array) -> list[Step]:
        """What makes y = x W of these arrays."""
        groups = self.groups(len(x))
        stacked = self._stacked(y)
        if not groups.are_summed:
            return [blocking.product(self._stacked(x), w, stacked)]
        weight, size = self._grouped(w[None], groups), groups.at_a_time
        by_group = self._by_group(x, groups)
        part, products = self.memory.temporaries(
            (y.shape, self.dtype), ((size, *y.shape), self.dtype)
        )
        part, products = self._stacked(part), products.reshape(size, *stacked.shape)
        steps: list[Step] = []
        for start in range(0, groups.number, size):
            total = part if start else stacked
            if size == 1:
                steps += [partial(np.matmul, by_group[start], weight[start], out=total)]
            else:
                group = slice(start, start + size)
                some = products[: len(by_group[group])]  # (groups, k, n, out): contributions
                steps += [partial(np.matmul, by_group[group], weight[group], out=some)]
                steps += [partial(np.add.reduce, some, axis=0, out=total)]
            if start:
                steps += [partial(np.add, stacked, part, out=stacked)]
        return steps

    def backward_steps(self, dy: Array, dx: Array | None) -> list[Step]:
        """What makes the parameters' gradients, and that of the last input if it is wanted."""
        groups, rows = self.groups(len(dy)), self._stacked(dy)
        x = self._by_group(self.x, groups)
        dweight = self._grouped(self._stack_of(self.weight), groups)
        steps: list[Step] = [blocking.product(x.transpose(0, 1, 3, 2), rows, dweight)]
        if self.has_bias:  # of rounded numbers: exact
            steps += [partial(np.add.reduce, rows, axis=1, out=self._stack_of(self.bias))]
        if dx is None:
            return steps
        # Vectors (N, K): dx itself, or what is copied to images in the engine's memory order.
        vectors = dx
        if not dx.flags.c_contiguous:
            vectors = self.memory.temporary((len(dy), self.in_features), self.dtype)
        weight = self._grouped(self.w[None], groups).transpose(0, 1, 3, 2)
        steps += [partial(np.matmul, rows, weight, out=self._by_group(vectors, groups))]
        if vectors is not dx:
            steps += [partial(np.copyto, dx, vectors.reshape(dx.shape))]
        return steps

    def _as_vectors(self, x: Array) -> Array:
        """`x` as it lies if it is vectors (N, K) there, else a copy; rounded if operands are."""
        if self.arithmetic.rounds:
            rounded = self._own_vectors(len(x))
            to_grid(x, grid_unit(x, self.arithmetic.bits), rounded.reshape(x.shape))
            return rounded
        if x.flags.c_contiguous:
            return x
        vectors = self._own_vectors(len(x))
        np.copyto(vectors.reshape(x.shape), x)
        return vectors

    def _own_vectors(self, n: int) -> Array:
        return self.memory.array("x", (n, self.in_features), self.dtype)

    def _stacked(self, vectors: Array) -> Array:
        """Vectors (N, K) of k micro-batches as (k, n, K), a view."""
        n = len(vectors)
        return vectors.reshape(-1, self.rows or n, vectors.size // n)

    def _stack_of(self, parameter: Parameter) -> Array:
        """The gradients of the k micro-batches of x, (k, *shape)."""
        return parameter.grad[: len(self.x) // self.rows] if self.rows else parameter.grad[None]

    def _by_group(self, vectors: Array, groups: _Groups) -> Array:
        """Vectors (N, K) as (P, k, n, K / P), a view."""
        n, p = self.rows or len(vectors), groups.number
        return vectors.reshape(-1, n, p, self.in_features // p).transpose(2, 0, 1, 3)

    def _grouped(self, weights: Array, groups: _Groups) -> Array:
        """Weights or their gradients (k, K, out) as (P, k, K / P, out), a view."""
        k, p = len(weights), groups.number
        return weights.reshape(k, p, -1, self.out_features).transpose(1, 0, 2, 3)

    def _num_groups(self, n: int) -> int:
        """As few as BLAS multiplies without copies; 1 if these were of too few features."""
        longest = blocking.SMALL_PRODUCT // (n * self.out_features)
        parts = blocking.equal_parts(self.in_features, longest)
        few = 2 * -(-self.in_features // max(1, longest))
        # A prime number of features stays whole, too.
        return parts if parts <= few and self.in_features >= _FEWEST * parts else 1


@portable
class Flatten(Layer):
    """Images `(N, C, H, W)` to vectors `(N, C * H * W)` in that order."""

    kind = "flatten"

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        return (int(np.prod(shape)),)

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        self.shape = x.shape
        y = self.output((len(x), int(np.prod(x.shape[1:]))), out)
        np.copyto(y.reshape(x.shape), x)
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        dx = self.input_gradient(self.shape, out)
        np.copyto(dx, dy.reshape(self.shape))
        return dx


@portable
class Unflatten(Layer):
    """Vectors `(N, C * H * W)` to images `(N, C, H, W)`, `shape` being (C, H, W), in that order."""

    kind = "unflatten"

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        checked = arguments.shape("Unflatten", "shape", shape)
        self.image_shape = arguments.image_shape("Unflatten", checked)

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        if shape != (int(np.prod(self.image_shape)),):
            raise arguments.refusal("Unflatten", "shape", self.image_shape, f"as many as {shape}")
        return self.image_shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = self.output((len(x), *self.image_shape), out)
        np.copyto(y, x.reshape(y.shape))
        return y

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        dx = self.input_gradient((len(dy), int(np.prod(self.image_shape))), out)
        np.copyto(dx.reshape(dy.shape), dy)
        return dx
