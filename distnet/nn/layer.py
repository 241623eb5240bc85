"""The contract of a layer: a function with a gradient.

`build` fixes the shapes and declares the parameters. `forward` and `backward` are the book's, with
NumPy's `out=` convention for where the result goes:

* An array that a layer returns belongs to the layer and is overwritten by its next call with the
  same batch size: nothing is allocated in the steady state. Copy what must outlive that.
* The gradient that `backward` returns lies in memory that the layers of a network take turns on. It
  is there until the layer that wants it, the one in front, has run backward.
* A layer never writes into `x` or `dy`, unless it is asked to by `out=x` or `out=dy`, which layers
  with `in_place = True` allow. It may read `x` once more in `backward`: leave it alone until then.
  What it returned may be overwritten before that, unless it says `needs_output = True`.
* `backward` overwrites `grad` of the layer's parameters with the gradient of the last forward pass.
  It may run again for the same forward pass, with another `dy`.

Where a layer gets its arrays is in `distnet.nn.memory`. Layers of a user's own need not know most
of this: see `distnet.nn.own_layers`.

A layer has one place in one network, since it remembers what it computed last. A copy of it, by
`copy.deepcopy` or pickle, is a new layer with the same arguments, see `Layer.arguments`.

The optional `inbox` lets a layer choose the memory in which it wants to find its input (a
convolution: the inside of a zero-padded array), so that the producer writes there directly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic, grid_unit, to_grid
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.base.plain import plain_items
from distnet.nn.memory import Memory
from distnet.nn.parameters import Parameter, Statistic

Arguments = tuple[tuple[Any, ...], dict[str, Any]]  # by position and by name


class Layer:
    """Base of all layers; the defaults suit one without parameters that keeps the shape."""

    kind = "layer"  # the stem of its name in a network: conv1, conv2, linear1
    in_place = False  # may be called with out=x and out=dy
    needs_output = False  # backward reads what forward wrote: nobody may overwrite it in between

    # The shapes of one sample, set by the container that builds the layer.
    input_shape: Shape = ()
    output_shape: Shape = ()
    made_with: Arguments  # those of the constructor

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        layer = super().__new__(cls)
        layer.made_with = args, kwargs
        Layer.__init__(layer)  # which a constructor of a user's own may leave out
        return layer

    def __init__(self) -> None:
        self.index = 0  # position among the network's layers, keys its random stream
        self.dtype: np.dtype = np.dtype(np.float32)
        self.arithmetic: Arithmetic = FLOAT  # in which the network computes
        self.memory = Memory()  # a network gives its layers memory that they share
        self.in_network = False  # whether a network has this layer already
        self._held: list[Layer] = []  # those of a user's own layer, see `own_layers.held_in`

    def join(self, before: Sequence[Layer]) -> None:
        """Told, before it is built, which layers come before it in its list.

        For one that works together with one of them.
        """

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        """Fixes the input shape of one sample, `(C, H, W)` or `(K,)`; returns the output's.

        A layer may be built again, and then declares its parameters anew.
        """
        self.dtype = np.dtype(dtype)
        return shape

    def arguments(self) -> Arguments:
        """The arguments that make a layer like this one as it is now: copies and files keep them.

        They are those of the constructor, but of plain data whose attributes of the same name
        have been changed since, as by `dropout.ratio = 0.1`, what these are now.
        """
        args, kwargs = self.made_with
        given = inspect.signature(type(self).__init__).bind(self, *args, **kwargs)
        _, *names = given.signature.parameters
        plain = plain_items({name: getattr(self, name, self) for name in names})
        if not plain:
            return self.made_with
        new = _make(type(self), args, kwargs)
        changed = {name: now for name, now in plain.items() if getattr(new, name, now) != now}
        if not changed:
            return self.made_with
        given.arguments |= changed
        return given.args[1:], given.kwargs

    def __reduce__(self) -> tuple[Callable[..., Layer], tuple[Any, ...]]:
        """A deep copy or an unpickled layer is a new one, made with the same arguments."""
        return _make, (type(self), *self.arguments())

    def __repr__(self) -> str:
        args, kwargs = self.arguments()
        given = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{type(self).__name__}({', '.join(given)})"

    @property
    def multiply_adds(self) -> int:
        """The products that are added up in a forward pass over one sample."""
        return 0

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The trained arrays with their names, in the order of the flat vector."""
        return iter(())

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        """The running averages with their names."""
        return iter(())

    def update_statistics(self) -> None:
        """Moves the running averages: in `batch` they find the sums over the global batch.

        A container hands it on, and a layer to those that it holds.
        """
        for layer in self._held:
            layer.update_statistics()

    def hold(self, layers: Iterable[Layer]) -> None:
        """Told, after it was built, which layers it has among its attributes for itself alone."""
        self._held = list(layers)

    def named_leaves(self) -> Iterator[tuple[str, Layer]]:
        """The layers that compute something, the layer itself or what a container holds.

        The name says where in the container: `residual1.path2.conv1`. It is empty for the layer.
        """
        yield "", self

    def leaves(self) -> Iterator[Layer]:
        """The layers of `named_leaves`, without their names."""
        return (leaf for _, leaf in self.named_leaves())

    def use(self, memory: Memory) -> None:
        """Gives up all arrays and takes new ones from `memory`; a container hands it on."""
        self.memory = memory

    def compute_in(self, arithmetic: Arithmetic) -> None:
        """Takes the arithmetic of the network, before `build`; a container hands it on.

        Raises ValueError if the layer may not take part.
        """
        arithmetic.check(type(self), type(self).__name__)
        self.arithmetic = arithmetic

    def fused_with(self, following: Layer) -> Layer | None:
        """A layer that does the work of this one and the next, on their parameters; or None.

        Both are built. `Sequential` asks, and runs it in their place.
        """
        return None

    def refresh(self) -> None:
        """Forgets what was derived from parameter values; to be called after changing them."""
        for layer in self._held:
            layer.refresh()

    def inbox(self, n: int) -> Array | None:
        """The array that the layer would like as input for batch size `n`; None: any will do."""
        return None

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        """The output for input `x`; training mode if `at` says which micro-batch this is."""
        raise NotImplementedError

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        """Sets the parameters' gradients from that of the output; returns that of the input."""
        raise NotImplementedError

    def operand(self, x: Array, kept_as: str = "") -> Array:
        """`x` as an operand of matrix products: `x` itself, or a copy that is rounded to a grid.

        kept_as: the name of the copy, if it is to stay until backward; otherwise it is there until
        the layer returns.
        """
        if not self.arithmetic.rounds:
            return x
        memory = self.memory
        copy = memory.array(kept_as, x.shape, self.dtype) if kept_as else memory.operand(x.shape)
        return to_grid(x, grid_unit(x, self.arithmetic.bits), copy)

    def output(self, shape: Shape, out: Array | None) -> Array:
        """`out`, or the layer's own output array of that shape."""
        return self.memory.array("output", shape, self.dtype) if out is None else out

    def input_gradient(self, shape: Shape, out: Array | None) -> Array:
        """`out`, or the layer's array for the gradient of its input."""
        return self.memory.gradient(shape, self.dtype) if out is None else out


def _make(cls: type[Layer], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Layer:
    return cls(*args, **kwargs)
