"""Parameters and running statistics as named views of flat vectors.

A layer declares `Parameter`s and `Statistic`s when it is built; `Parameters` gives each of them its
place in one contiguous vector, in forward order. After that, `value` and `grad` are views: the
optimizer, the reducer, the checkpoint and the hash work on the vectors and never see a layer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic, Generator
from distnet.base.arrays import Array, Shape

T = TypeVar("T")
VECTORS = ("values", "grads", "constants", "statistics", "batch_statistics")  # of `Parameters`
Initializer = Callable[[Generator, Shape], Array]


@dataclass(eq=False)
class Home:
    """Where the values of parameters are: in `place`, and while a device is ahead of it elsewhere.

    bring: copies them into an array like `place`; None: they are there.
    """

    place: Array
    bring: Callable[[Array], None] | None = None

    def values(self) -> Array:
        """`place`, brought up to date."""
        if self.bring is not None:
            bring, self.bring = self.bring, None
            bring(self.place)
        return self.place


class InVectors:
    """What has arrays that are flat vectors or views of them, once they have been bound.

    From then on, what is assigned to one of them is written into the vector: an array that was
    merely replaced would be trained, summed or saved no more.
    """

    _bound: Collection[str] = ()

    def bind(self, **arrays: Any) -> None:
        """Makes these the arrays of those names, whatever they were before."""
        self.__dict__.update(arrays, _bound=tuple(arrays))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._bound:
            getattr(self, name)[...] = value
        else:
            super().__setattr__(name, value)


class Declared(InVectors):
    """What a layer declares, and a network gives its place."""

    def __getattr__(self, name: str) -> Any:
        """For an array that is not there yet."""
        kind = type(self).__name__
        raise AttributeError(
            f"{kind}.{name.lstrip('_')}: found none, as no network has this {kind}; expected its "
            f"layer to be built, and to name it in {kind.lower()}s()"
        )


@dataclass(eq=False)
class Parameter(Declared):
    """An array that is trained: its shape, how it starts, whether weight decay applies to it.

    bound: the largest magnitude of its elements, if its layer cuts them to one in `refresh`.
    is_frozen: it is not, but stays as it is; see `Network.freeze`.
    home: of the flat vector in which its array is, if it is in one.
    """

    shape: Shape
    init: Initializer
    decays: bool = True
    bound: float = math.inf
    is_frozen: bool = field(init=False, default=False)
    grad: Array = field(init=False, repr=False)
    home: Home | None = field(init=False, repr=False, default=None)
    _value: Array = field(init=False, repr=False)

    @property
    def value(self) -> Array:
        """The array, a view of the flat vector."""
        if self.home is not None:
            self.home.values()
        return self._value

    @value.setter
    def value(self, array: Array) -> None:
        if self.home is not None:
            self.home.values()
        self._value = array

    @property
    def is_away(self) -> bool:
        """Whether a device is ahead of `value`; to read that brings it home."""
        return self.home is not None and self.home.bring is not None

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(eq=False)
class Statistic(Declared):
    """A running average that evaluation uses, `value`, float64; and what moves it, `batch`, flat.

    In training mode a layer writes into `batch` what one micro-batch contributes, weighted by the
    micro-batch's share of the global batch, so that the sum over all micro-batches is the average
    over the global batch. It is summed like the gradients. When the sum lies in `batch`, the
    layer's `update_statistics` moves `value`. One that `is_frozen` stays as it is and has no
    `batch`: the layer uses it in training as in evaluation.
    """

    shape: Shape
    start_value: float
    batch_size: int = 0  # how many numbers are summed; 0: as many as the value has
    is_frozen: bool = field(init=False, default=False)
    value: Array = field(init=False, repr=False)
    batch: Array = field(init=False, repr=False)

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Slot:
    """The place of one named array in a flat vector: `vector[start:stop].reshape(shape)`.

    Of a stack of vectors `(k, size)` as well, for gradients: then it is `(k, *shape)`.
    """

    name: str
    start: int
    stop: int
    shape: Shape

    def of(self, vector: Array) -> Array:
        """The array in `vector`, a view."""
        return vector[..., self.start : self.stop].reshape(*vector.shape[:-1], *self.shape)


class Part(Protocol):
    """What holds parameters and statistics: a layer, such as the body of a network."""

    def parameters(self) -> Iterator[tuple[str, Parameter]]: ...
    def statistics(self) -> Iterator[tuple[str, Statistic]]: ...
    def update_statistics(self) -> None: ...
    def refresh(self) -> None: ...


class Parameters(InVectors):
    """All trained arrays and running statistics of some layers: flat vectors, with names.

    values, grads: the trained parameters and their gradients, `(P,)`, in forward order.
    constants: `(Q,)`, the parameters that are frozen. What optimizers, reducers and averages work
    on does not hold them; what is saved, shown or hashed does.
    arithmetic: in which the parts compute; gradients have its type.
    decays: `(P,)` bool, whether weight decay applies: to weights, not to biases, gamma, beta.
    statistics: running averages, `(S,)` float64.
    batch_statistics: what one micro-batch contributes to them, `(B,)` float64.
    slots, constant_slots, statistic_slots, batch_slots: the name, place and shape of every array in
    those vectors.
    parts: the layers by name; the name comes before those of their arrays, unless it is empty.
    starts: where in `values` the parameters of each part begin.

    What parameters and statistics held before keep their values. What is assigned to a vector is
    written into it. After writing into `values`, call `refresh`.

    A device that trains alone changes its own copy of the values, see `leave`; who reads `values`,
    or a parameter, has them brought home. Only a view that was taken before is what it was then.
    """

    grads: Array
    constants: Array
    statistics: Array
    batch_statistics: Array

    def __init__(
        self,
        parts: Mapping[str, Part],
        dtype: DTypeLike = np.float32,
        arithmetic: Arithmetic = FLOAT,
    ) -> None:
        self.parts, self.dtype, self.arithmetic = dict(parts), np.dtype(dtype), arithmetic
        self.are_joined = False
        self._allocate()

    def _allocate(self) -> None:
        self._collect()
        self.move_to(
            values=np.zeros(end(self.slots), self.dtype),
            grads=np.zeros(end(self.slots), self.arithmetic.dtype(self.dtype)),
            constants=np.zeros(end(self.constant_slots), self.dtype),
            statistics=np.zeros(end(self.statistic_slots)),
            batch_statistics=np.zeros(end(self.batch_slots)),
        )

    def take_anew(self) -> None:
        """For parts that were built again: new vectors with the values of the old ones, by name.

        They stay as they are; a layer that keeps its values within bounds does so in `refresh`.
        """
        held = {name: array.copy() for name, array in self.all_named().items()}
        self._allocate()
        for name, value in self.all_named().items():
            np.copyto(value, held[name])

    def __getstate__(self) -> dict[str, Any]:
        """The vectors and names; what the layers declared is to be found by `rejoin`."""
        if set(self.parts) != {""}:
            raise TypeError(
                "parameters of several networks: found a copy or a pickle of all at once, expected "
                "one of each network; copy the networks and join the copies"
            )
        derived = ("_parameters", "_statistics", "decays", "_first", "_home")
        state = {name: value for name, value in self.__dict__.items() if name not in derived}
        return state | {"values": self.values}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._home = Home(self.__dict__.pop("values"))

    @property
    def values(self) -> Array:
        """See above."""
        return self._home.values()

    @values.setter
    def values(self, values: Array) -> None:
        """What `parameters.values += 1` ends with: the vector stays where it is."""
        np.copyto(self._home.values(), values)

    @property
    def place(self) -> Array:
        """The array of `values`, for who does not read it, whatever is there."""
        return self._home.place

    @property
    def are_away(self) -> bool:
        """Whether the values are newer elsewhere."""
        return self._home.bring is not None

    def leave(self, bring: Callable[[Array], None]) -> None:
        """The values have changed elsewhere: `bring` copies them into an array `(P,)`, when asked.

        Layers forget what they derived, as after `refresh`.
        """
        self._home.bring = bring
        for part in self.parts.values():
            part.refresh()

    def rejoin(self) -> None:
        """For a copy whose parts have been built: makes their arrays views of the vectors."""
        self._collect()
        self._bind()

    def sha256(self) -> str:
        """The SHA-256 of all parameters in forward order, as little-endian float32."""
        sha = hashlib.sha256()
        for value in self.named().values():
            sha.update(np.ascontiguousarray(value, "<f4").data)
        return sha.hexdigest()

    def _collect(self) -> None:
        """What the parts have declared, and where it is in the vectors."""
        parameters = dict(_named(self.parts, lambda part: part.parameters()))
        statistics = dict(_named(self.parts, lambda part: part.statistics()))
        _check_distinct({**parameters, **statistics})
        self._parameters, self._statistics = parameters, statistics
        trained = {name: p for name, p in parameters.items() if not p.is_frozen}
        self.slots = slots({name: p.shape for name, p in trained.items()})
        self.constant_slots = slots({n: p.shape for n, p in parameters.items() if p.is_frozen})
        self.statistic_slots = slots({name: s.shape for name, s in statistics.items()})
        moved = {name: s for name, s in statistics.items() if not s.is_frozen}
        self.batch_slots = slots({n: (s.batch_size or s.size,) for n, s in moved.items()})
        decays = np.array([p.decays for p in trained.values()], bool)
        self.decays = np.repeat(decays, [p.size for p in trained.values()])
        self.starts = self._starts()

    def _starts(self) -> dict[str, int]:
        starts, start = {}, 0
        for name, part in self.parts.items():
            starts[name] = start
            start += num_trained(part)
        return starts

    def move_to(
        self,
        values: Array,
        grads: Array,
        constants: Array,
        statistics: Array,
        batch_statistics: Array,
    ) -> None:
        """Makes every array a view of one of these vectors, and copies it there."""
        for vector, places in ((values, self.slots), (constants, self.constant_slots)):
            for slot in places:
                slot.of(vector)[...] = getattr(self._parameters[slot.name], "value", 0)
        for slot in self.statistic_slots:
            statistic = self._statistics[slot.name]
            slot.of(statistics)[...] = getattr(statistic, "value", statistic.start_value)
        self._home = Home(values)
        self.bind(
            grads=grads,
            constants=constants,
            statistics=statistics,
            batch_statistics=batch_statistics,
        )
        self._bind()

    def _bind(self) -> None:
        """Makes every array of the parts a view of the vectors."""
        # Layers write gradients of what is frozen as well.
        unread = np.empty((*self.grads.shape[:-1], self.constants.size), self.grads.dtype)
        trained = self.slots, self.place, self.grads
        for places, values, grads in (trained, (self.constant_slots, self.constants, unread)):
            for slot in places:
                parameter = self._parameters[slot.name]
                parameter.bind(_value=slot.of(values), grad=slot.of(grads))
                parameter.home = self._home
        first = {slot.start: self._parameters[slot.name] for slot in reversed(self.slots)}
        self._first = [first[start] for start in set(self.starts.values()) & first.keys()]
        batches = {slot.name: slot.of(self.batch_statistics) for slot in self.batch_slots}
        for slot in self.statistic_slots:
            batch = {"batch": batches[slot.name]} if slot.name in batches else {}
            self._statistics[slot.name].bind(value=slot.of(self.statistics), **batch)

    @property
    def are_elsewhere(self) -> bool:
        """Whether a part works on other vectors by now, as after another `joined`."""
        return not all(np.may_share_memory(each.grad, self.grads) for each in self._first)

    @property
    def size(self) -> int:
        """How many parameters there are, trained or frozen."""
        return self.place.size + self.constants.size

    def bounds(self) -> Array | None:
        """The bound of each of `values`, `(P,)`, infinite where there is none; None: nowhere."""
        bounds = [(slot, self._parameters[slot.name].bound) for slot in self.slots]
        if all(np.isinf(bound) for _, bound in bounds):
            return None
        vector = np.empty(self.place.shape, self.dtype)
        for slot, bound in bounds:
            vector[slot.start : slot.stop] = bound
        return vector

    def named(self) -> dict[str, Array]:
        """Every parameter by name, in forward order, as views.

        Weights of convolutions are (F, C, KH, KW), linear ones (in, out). After writing into one,
        call `refresh`: layers keep what they have derived.
        """
        return {name: parameter.value for name, parameter in self._parameters.items()}

    def named_in(self, vector: Array, prefix: str) -> dict[str, Array]:
        """As `named`, of another vector, such as a moment: "PREFIX.NAME" for every parameter.

        One of another shape or type belongs to none of them and is all of "PREFIX".
        """
        if vector.shape != self.place.shape or vector.dtype != self.place.dtype:
            return {prefix: vector}
        return {f"{prefix}.{slot.name}": slot.of(vector) for slot in self.slots}

    def named_statistics(self) -> dict[str, Array]:
        """Every running statistic by name, as views."""
        return {slot.name: slot.of(self.statistics) for slot in self.statistic_slots}

    def all_named(self) -> dict[str, Array]:
        """Both."""
        return self.named() | self.named_statistics()

    def load(self, named: Mapping[str, Array], *, statistics: bool = True) -> None:
        """Copies all parameters and running statistics by name.

        `statistics=False` copies the parameters alone, and leaves the statistics as they are.
        Raises ValueError, and copies nothing, for a name that is missing, misshapen or unknown.
        """
        own = self.all_named() if statistics else self.named()
        for name, value in own.items():
            found = np.shape(named[name]) if name in named else "nothing"
            if found != value.shape:
                raise ValueError(f"{name}: found {found}, expected shape {value.shape}")
        if unknown := [name for name in named if name not in own]:
            raise ValueError(f"{unknown[0]}: found {np.shape(named[unknown[0]])}, expected nothing")
        for name, value in own.items():
            np.copyto(value, named[name])
        self.refresh()

    def refresh(self) -> None:
        """To be called after every change of `values`: layers forget what they derived from it."""
        if self.are_away:
            raise RuntimeError(
                "parameters.refresh: found values that a device has changed meanwhile, expected "
                "them to be read, as `parameters.values`, before they are written"
            )
        for part in self.parts.values():
            part.refresh()

    def update_statistics(self, batch_sums: Array) -> None:
        """Moves the running averages towards the global batch's sums of `batch_statistics`."""
        if not self.batch_slots:
            return
        np.copyto(self.batch_statistics, batch_sums)
        for part in self.parts.values():
            part.update_statistics()

    def name_at(self, index: int) -> str:
        """The parameter to which element `index` of the flat vector belongs."""
        return next(slot.name for slot in self.slots if slot.start <= index < slot.stop)

    def statistic_at(self, index: int) -> str:
        """The statistic to which element `index` of `batch_statistics` contributes."""
        return next(slot.name for slot in self.batch_slots if slot.start <= index < slot.stop)


def slots(shapes: Mapping[str, Shape]) -> list[Slot]:
    """The places of named arrays of these shapes when laid end to end."""
    places, start = [], 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        places.append(Slot(name, start, stop, shape))
        start = stop
    return places


def num_trained(part: Part) -> int:
    """How many parameters of a part are not frozen."""
    return sum(p.size for _, p in part.parameters() if not p.is_frozen)


def end(places: Sequence[Slot]) -> int:
    """The size of the vector that holds them all."""
    return places[-1].stop if places else 0


def _check_distinct(named: Mapping[str, Parameter | Statistic]) -> None:
    """Raises ValueError for an array that two layers call theirs: it has one place in a vector."""
    names: dict[Parameter | Statistic, str] = {}
    for name, array in named.items():
        if array in names:
            kind = type(array).__name__
            raise ValueError(
                f"{name}: found the same {kind} as {names[array]}, expected one of its own; what "
                "is used at two places belongs to one layer, which computes both"
            )
        names[array] = name


def _named(
    parts: Mapping[str, Part], items: Callable[[Part], Iterator[tuple[str, T]]]
) -> Iterator[tuple[str, T]]:
    for prefix, part in parts.items():
        for name, item in items(part):
            yield (f"{prefix}.{name}" if prefix else name), item
