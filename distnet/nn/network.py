"""A network: a chain of layers over flat parameter vectors. It knows no loss."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic, arithmetic_of, loss_scale
from distnet.base.arrays import Array, Shape, format_shape
from distnet.base.images import channels_last_hint, checked_images, large_floats_hint
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.base.output import warn
from distnet.nn import arguments, layout
from distnet.nn.layer import Layer
from distnet.nn.layers.embedding import Embedding
from distnet.nn.memory import Memory
from distnet.nn.own_layers import held_by, held_in, is_own
from distnet.nn.parameters import Parameters, num_trained
from distnet.nn.passes import Passes
from distnet.nn.sequential import Sequential
from distnet.nn.summary import summarize

Ready = Callable[[int], None]

# Samples of one forward pass in `predict`: bounds its memory. Large ones come in a part of a block,
# so that whoever gives ranks whole blocks gets the same passes.
PREDICT_BLOCK = 100
PREDICT_NUMBERS = 1_300_000  # in the samples of a pass

COMPUTING = "forward", "backward", "as_input"  # what the layers alone decide


class Network:
    """Layers built for one input shape, `(C, H, W)` or `(K,)`.

    parameters: all trained arrays and running statistics, in flat vectors.
    body: the layers, one after another. output_shape: that of one sample. classes: the names of the
    outputs of a classifier, in their order; () if nobody has said. frozen: what is not trained, see
    `freeze`.

    The initial values are a pure function of the seed. None leaves them zero, for parameters that
    are loaded: drawing them takes seconds for the largest networks. A layer has one place in one
    network; a network can be copied with `copy.deepcopy`, and pickled. What is trained for is not a
    matter of the network but of an objective, see `distnet.objectives`.

    What it computes is what its layers compute: files, devices and copies know nothing else of it.
    So a class derived from it has a constructor of its own, but not these: `forward`, `backward`,
    `as_input`.
    """

    _has_hinted = False  # that floats look like bytes

    def __init__(
        self,
        layers: Iterable[Layer],
        input_shape: Shape,
        *,
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
        arithmetic: str | Arithmetic = FLOAT,
    ) -> None:
        for name in COMPUTING:
            if getattr(type(self), name) is not getattr(Network, name):
                raise ValueError(
                    f"{type(self).__name__}: found a {name} of its own, which no file and no "
                    "device would know of, expected that of Network; write what it does as a layer "
                    "of your own, in the list of layers"
                )
        self.body = Sequential(layers)
        self.input_shape = arguments.shape("Network", "input_shape", input_shape)
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise arguments.refusal("Network", "dtype", np.dtype(dtype).name, "float32 or float64")
        self.arithmetic = arithmetic_of(arithmetic)
        self.dtype = self.arithmetic.dtype(dtype)
        if seed is not None:
            seed = arguments.whole("Network", "seed", seed, minimum=0, maximum=2**64 - 1)
        self.frozen: tuple[str, ...] = ()
        check_new(self.body)
        try:
            self._build()
        except ValueError as error:
            if hint := channels_last_hint(self.input_shape):
                raise ValueError(f"{error}; input_shape {hint}") from None
            raise
        self.parameters = Parameters({"": self.body}, dtype, self.arithmetic)
        self.classes: tuple[str, ...] = ()
        self._initialize(seed)

    def compute_in(self, arithmetic: str | Arithmetic, *, seed: int | None = None) -> Network:
        """The network itself, which from now on computes in `arithmetic`, see `base.arithmetic`.

        With a seed it starts anew, as a network that was made in it; otherwise it keeps its values.
        Raises ValueError for a layer that may not take part. To be called before the network is
        part of an objective or of `joined`.
        """
        if self.parameters.are_joined:
            raise ValueError(
                "compute_in: found a network that was joined with others, expected it to be called "
                "before that"
            )
        self.arithmetic = self.parameters.arithmetic = arithmetic_of(arithmetic)
        self.dtype = self.arithmetic.dtype(self.parameters.dtype)
        self._build()
        self.parameters.take_anew()
        self._initialize(seed)
        return self

    def run_by(self, chain: Callable[[Iterable[Layer]], Sequential]) -> None:
        """Makes another chain of its layers run them from now on, such as one on a GPU.

        The values stay; the vectors are new ones, as after `compute_in`.
        """
        if self.parameters.are_joined:
            raise ValueError(
                "run_by: found a network that was joined with others, expected it to be called "
                "before that"
            )
        former, self.body = self.body, chain(self.body.layers)
        try:
            self._build()
        except ValueError:
            self.body = former
            self._build()
            raise
        finally:
            self.parameters.parts = {"": self.body}
            self.parameters.take_anew()

    def __getstate__(self) -> dict[str, Any]:
        """What a deep copy or a pickle holds: the arguments of the layers, and the vectors."""
        return {name: self.__dict__[name] for name in self.__dict__ if name not in self._derived}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.frozen = ()  # a pickle of an earlier version does not say, nor this
        self.arithmetic = FLOAT
        self.__dict__.update(state)
        self._build()
        self.parameters.rejoin()
        self.parameters.refresh()  # values of an earlier version may be out of bounds

    def __str__(self) -> str:
        """A table of the layers with their outputs, parameters and multiply-adds."""
        return summarize(type(self).__name__, self.body)

    @property
    def multiply_adds(self) -> int:
        """The products that are added up in a forward pass over one sample."""
        return self.body.multiply_adds

    def __repr__(self) -> str:
        shapes = f"{format_shape(self.input_shape)} -> {format_shape(self.output_shape)}"
        return f"<{type(self).__name__} {shapes}, {self.parameters.size:,} parameters>"

    def freeze(self, *names: str) -> None:
        """What has these names is not trained, everything else is: for transfer learning.

        A name is that of a layer, such as `residual1` or `residual1.path1.conv2`, or of an array,
        `linear1.bias`; or the kind of all layers that are to be frozen, `conv`. No name: everything
        is trained again.

        What is frozen is a constant: no gradients of it are summed and sent, no optimizer has
        moments or weight decay for it, and a frozen BatchNorm normalises by its running statistics,
        in training as well. If all layers up to some point are frozen, training does not run
        backward through them. Copies, pickles and files of the network keep what is frozen.

        To be called before training begins: `parameters` has new vectors afterwards. Raises
        ValueError for a name that nothing has, and for networks that were joined.
        """
        for name in names:
            if not any(has_name(array, name) for array in self.parameters.all_named()):
                layers = dict.fromkeys(n.partition(".")[0] for n in self.parameters.named())
                raise ValueError(
                    f"freeze: found {name!r:.60}, expected a layer or a kind of layers that has "
                    f"parameters: {', '.join(layers)}"
                )
        if self.parameters.are_joined:
            raise ValueError(
                "freeze: found a network that was joined with others, expected it to "
                "be frozen before that"
            )
        self.frozen = tuple(dict.fromkeys(names))
        self._build()
        self.parameters.take_anew()
        self.parameters.refresh()

    def predict(self, x: object) -> Array:
        """The outputs `(N, ...)` in evaluation mode, in a new array; for a classifier, the logits.

        x: `(N, *input_shape)`, of any length: it is computed in blocks, whose memory is bounded.
        Bytes are pixels, 0 to 255, and mean 0 to 1; floats are taken as they are; see
        `base.images.checked_images`, which also raises DataError for what cannot be images. Several
        threads may call it; they take turns.
        """
        x = checked_images(x, self.input_shape)
        if self.classes and not self._has_hinted and (hint := large_floats_hint(x)):
            self._has_hinted = True
            warn(f"predict: {hint}")
        result = np.empty((len(x), *self.output_shape), self.dtype)
        size = self._samples_of_a_pass()
        with self._predicting:
            for start in range(0, len(x), size):
                block = x[start : start + size]
                outputs = self.forward(self.as_input(block, copy=False), copy=False)
                result[start : start + len(block)] = outputs
        return result

    def _samples_of_a_pass(self) -> int:
        most = PREDICT_NUMBERS // math.prod(self.input_shape)
        divisors = (n for n in range(1, PREDICT_BLOCK + 1) if PREDICT_BLOCK % n == 0)
        return max((n for n in divisors if n <= most), default=1)

    def forward(self, x: Array, at: MicroBatch | None = None, *, copy: bool = True) -> Array:
        """The outputs `(N, *output_shape)` for x `(N, *input_shape)` in the network's dtype.

        `at` says which micro-batch this is in training; None is evaluation mode. `copy=False` saves
        a copy: the result is an array of the network, which the next call may overwrite. Raises
        ValueError for integers, which `as_input` or `predict` take, unless they are words.
        """
        if x.dtype.kind != "f" and not self._reads_words():  # they would be taken as they are
            raise ValueError(
                f"forward: found {x.dtype}, expected floats, such as network.as_input(images), "
                "which reads bytes 0 to 255 as 0 to 1"
            )
        y = self.body.forward(self._checked(x), at=at)
        self._passes.went_forward(y.shape, in_training=at is not None, alone=not copy)
        return y.copy(order="K") if copy else y

    def _reads_words(self) -> bool:
        return isinstance(next(iter(self.body.leaves()), None), Embedding)

    def backward(
        self, dy: Array, *, need_dx: bool = False, ready: Ready | None = None, copy: bool = True
    ) -> Array | None:
        """Fills `parameters.grads` from the gradient `dy` of the last forward pass's outputs.

        It overwrites what was there, and may run again for the same pass, with another `dy`.
        Returns the gradient of the input if `need_dx`, with `copy=False` in an array that the next
        call may overwrite. During it `ready(start)` says that `parameters.grads[start:]` is final.

        Raises ValueError if a later pass has overwritten what it needs: a network keeps that of one
        pass. What a loss compares goes through it in one, or forward again before its backward.
        """
        self._passes.go_back(dy.shape)
        for parameter in self._of_own_layers:  # which may add to their gradients
            parameter.grad[...] = 0
        if self.arithmetic.stores:
            dx = self._backward_scaled(dy, need_dx, ready or (lambda start: None))
        else:
            after = None if ready is None else lambda layer: ready(self._starts[layer])
            dx = self.body.backward(dy, need_dx=need_dx, after=after)
        return dx.copy(order="K") if copy and dx is not None else dx

    def _backward_scaled(self, dy: Array, need_dx: bool, ready: Ready) -> Array | None:
        """Gradients are larger by a power of two on their way, which changes no digit of them."""
        scale, grads = loss_scale(dy), self.parameters.grads
        dy = dy * dy.dtype.type(scale)  # an array of our own, to be rounded
        self.arithmetic.store(dy)
        final = grads.size

        def after(layer: Layer) -> None:
            nonlocal final
            start = self._starts[layer]
            grads[start:final] *= grads.dtype.type(1 / scale)
            final = start
            ready(start)

        dx = self.body.backward(dy, need_dx=need_dx, after=after)
        return None if dx is None else dx * dx.dtype.type(1 / scale)

    def as_input(self, x: Array, *, copy: bool = True) -> Array:
        """`x` as the network reads it: bytes 0 to 255 mean 0 to 1.

        With `copy=False` it is where the first layer reads it, which the next pass may overwrite.
        """
        shape = self._checked(x).shape
        out = layout.empty(shape, self.dtype) if copy else self._input(shape)
        np.copyto(out, x)
        # Copied before that: NumPy converts piece by piece what it multiplies.
        if x.dtype == np.uint8:
            np.multiply(out, self._pixel_scale, out=out)
        return out

    def _input(self, shape: Shape) -> Array:
        """The inbox of the first layer, or else an array of the network's."""
        inbox = self.body.inbox(shape[0])
        if inbox is not None:
            return inbox
        return self._memory.array("input", shape, self.dtype)

    def _checked(self, x: Array) -> Array:
        # Otherwise a layer might broadcast one channel to many without a word.
        if x.shape[1:] != self.input_shape:
            expected = ", ".join(map(str, self.input_shape))
            raise ValueError(f"input: found shape {x.shape}, expected (N, {expected})")
        return x

    def _build(self) -> None:
        """Everything but parameters: what is made anew for a copy."""
        before = set(self.__dict__) - getattr(self, "_derived", set())
        self.body.compute_in(self.arithmetic)
        self.output_shape = self.body.build(self.input_shape, self.dtype)
        for arrays in (self.body.parameters(), self.body.statistics()):
            for name, array in arrays:
                array.is_frozen = any(has_name(name, frozen) for frozen in self.frozen)
        self.body.use(Memory())
        leaves = list(self.body.named_leaves())
        for index, (name, layer) in enumerate(leaves):
            inside = held_by(layer)
            if any(p.arithmetic.rounds != self.arithmetic.rounds for p in (layer, *inside)):
                raise ValueError(f"{name}: found a container that does not hand `compute_in` on")
            layer.index, layer.in_network = index, True
        self._take_held(first_index=len(leaves))
        own = (leaf for leaf in self.body.leaves() if is_own(leaf))
        self._of_own_layers = [parameter for leaf in own for _, parameter in leaf.parameters()]
        self._starts = self._first_offsets()
        self._pixel_scale = np.array(1 / 255, self.dtype)
        self._memory = Memory()
        self._passes = Passes()
        self._predicting = threading.Lock()
        self._derived = {"_derived", *(self.__dict__.keys() - before)}

    def _initialize(self, seed: int | None) -> None:
        """Draws the values, unless the seed is None.

        A layer that keeps them within bounds does so from the beginning: otherwise who saves and
        restores them before the first step would change them.
        """
        if seed is not None:
            for index, (_, parameter) in enumerate(self.body.parameters()):
                rng = self.arithmetic.generator(stream(seed, Purpose.INIT, layer=index))
                parameter.value[...] = parameter.init(rng, parameter.shape)
        self.parameters.refresh()

    def _take_held(self, first_index: int) -> None:
        """What layers of a user's own hold draws bits of its own, and is told what they are."""
        held_in_body = held_in(self.body)
        held = dict.fromkeys(layer for each in held_in_body.values() for layer in each)
        for index, layer in enumerate(held, first_index):
            layer.index, layer.in_network = index, True
        for holder, layers in held_in_body.items():
            told = {leaf for leaf in holder.leaves() if leaf is not holder}  # by a container
            holder.hold(layer for layer in layers if not told.intersection(layer.leaves()))

    def _first_offsets(self) -> dict[Layer, int]:
        """For each layer of the chain, where in the flat vector its parameters begin."""
        offsets, start = {}, 0
        for layer in self.body.layers:
            offsets[layer] = start
            start += num_trained(layer)
        return offsets


def has_name(array: str, name: str) -> bool:
    """Whether an array, `residual1.path2.conv1.weight`, is that, or part of that layer or kind."""
    *layers, _ = array.split(".")
    kinds = (layer.rstrip("0123456789") for layer in layers)
    return array == name or array.startswith(f"{name}.") or name in kinds


def check_new(body: Sequential) -> None:
    """Raises ValueError if a layer is at two places, or part of a network already."""
    found = list(body.named_leaves())
    for own, held in held_in(body).items():
        found += [(f"inside of {type(own).__name__}", layer) for layer in held]
    places: dict[Layer, str] = {}
    for name, layer in found:
        kind = type(layer).__name__
        if layer in places:
            raise ValueError(
                f"{name}: found the same {kind} as {places[layer]}, expected a layer of its own, "
                f"since a layer remembers what it computed last; make a new {kind} for each place"
            )
        if layer.in_network:
            raise ValueError(
                f"{name}: found a {kind} that is part of another network, expected a new layer; "
                "make the layers anew for each network, or copy one with copy.deepcopy(network)"
            )
        places[layer] = name
