"""The arithmetic of a network: the one seam between what is computed and how numbers round.

`Float`, the default, is what NumPy and its BLAS do, as fast as they do it: its bits depend on the
kernels that a processor gets. `Portable` gives the same bits on every machine: the operands of
products are rounded to a grid of few bits and multiplied in float64, where all sums are then exact,
and what is left are single IEEE 754 operations. docs/portable.md derives it. `Mixed` is `Float` on
numbers of 16 bits.

What layers, losses, optimizers, schedules and initializers do that would depend on the machine goes
through an `Arithmetic`: reductions, operands of products, exp and its like, powers, and normal
random numbers. Whatever computes has to be declared `@portable`, which is a promise about its own
code; the rest is refused, with one line, when a network computes in portable arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base import elementary
from distnet.base.arrays import Array, Shape
from distnet.base.halves import HALVES

DIGITS = 53  # bits of a float64: whole numbers up to 2^53 are exact
LOWEST_EXPONENT = -100  # a tensor of zeros has a grid, too
BITS = 12  # of operands, unless told otherwise
FEWEST, MOST = 4, 16  # bits that may be asked for
MOST_SCALE = 100  # the exponent of it

T = TypeVar("T", bound=Callable[..., Any])
add_up: Callable[..., Any] = np.add.reduce


def portable(thing: T) -> T:
    """Declares a class or function portable: its own code has the same bits on every machine.

    That is so if each number comes from one NumPy call or operator of `+ - * /`, sqrt, rint,
    comparison, maximum, copy, or from the `Arithmetic`; and products are of operands that are
    rounded by it. A subclass has to be declared by itself.
    """
    thing.__portable__ = thing  # type: ignore[attr-defined]
    return thing


def is_portable(thing: object) -> bool:
    """Whether a class, a function or one with arguments filled in was declared portable."""
    if isinstance(thing, partial):
        thing = thing.func
    return getattr(thing, "__portable__", None) is thing


class Generator(Protocol):
    """What initializers and objectives draw from."""

    def standard_normal(self, size: Shape) -> Array:
        """Numbers of mean 0 and variance 1."""
        ...

    def permutation(self, count: int) -> Array:
        """The numbers below `count` in any order."""
        ...


class Arithmetic:
    """What `Float` and `Portable` share: the name, and what a thing has to be to take part."""

    name: str
    rounds = False  # whether operands of products are rounded
    bits = 0  # to which they are
    stores = False  # whether weights, and what layers hand to each other, are rounded by `store`

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def check(self, thing: object, name: str) -> None:
        """Raises ValueError, one line, if a class or function may not take part."""

    def store(self, x: Array) -> None:
        """Rounds in place what is kept in fewer bits than it is computed in."""

    def check_terms(self, owner: str, count: int, more_bits: int = 0) -> None:
        """Raises ValueError if a sum of so many products of two operands may not be exact.

        more_bits: by how many bits the two operands are longer than `bits` each.
        """

    def dtype(self, dtype: DTypeLike) -> np.dtype[Any]:
        """In which type a network computes whose parameters are `dtype`."""
        return np.dtype(dtype)

    def exp(self, x: Array, out: Array | None = None) -> Array:
        """e^x."""
        return np.exp(x, out=out)

    def log(self, x: Array, out: Array | None = None) -> Array:
        """ln x."""
        return np.log(x, out=out)

    def log1p(self, x: Array) -> Array:
        """ln(1 + x)."""
        return np.log1p(x)

    def softplus(self, x: Array) -> Array:
        """ln(1 + e^x)."""
        return np.logaddexp(0, x)

    def tanh(self, x: Array, out: Array | None = None) -> Array:
        """The hyperbolic tangent."""
        return np.tanh(x, out=out)

    def power(self, x: float, n: int) -> float:
        """x^n for a whole number n >= 0."""
        return x**n

    def powers(self, x: float, count: int) -> Array:
        """x^0, x^1 ... as float64, `count` of them."""
        return x ** np.arange(float(count))

    def root(self, x: float, n: int) -> float:
        """The n-th root of x > 0."""
        return x ** (1 / n)

    def cos(self, x: float) -> float:
        """The cosine for 0 <= x <= pi."""
        return math.cos(x)

    def cos_sin(self, x: Array) -> tuple[Array, Array]:
        """The cosines and the sines of angles."""
        return np.cos(x), np.sin(x)

    def sum(
        self,
        x: Array,
        axis: int | tuple[int, ...] | None = 0,
        *,
        dtype: DTypeLike | None = None,
        out: Array | None = None,
        keepdims: bool = False,
        scratch: Array | None = None,
    ) -> Any:
        """The sum over one axis, several or all (None), as by np.add.reduce.

        scratch: an array like `x` that may be written into, such as `x` itself.
        """
        return add_up(x, axis, dtype, out, keepdims)

    def generator(self, bits: np.random.Philox) -> Generator:
        """Where initial values come from, drawn from a stream of random bits."""
        return np.random.Generator(bits)


class Float(Arithmetic):
    """float32 (or float64, if the parameters are) as NumPy and its BLAS compute with it."""

    name = "float32"


class Mixed(Float):
    """float32 on numbers of 16 bits, as a processor multiplies them and adds up in float32.

    Micikevicius et al. 2018, "Mixed precision training", arXiv:1710.03740: the weights, what layers
    hand to each other and its gradients are float16 or bfloat16 numbers. The weights that are
    trained stay float32 (`optim.mixed`), and gradients are scaled up on their way back
    (`loss_scale`), as float16 has no room for small ones.
    """

    stores = True

    def __init__(self, name: str) -> None:
        self.name = name
        self._round = HALVES[name]

    def __repr__(self) -> str:
        return f"Mixed({self.name!r})"

    def store(self, x: Array) -> None:
        self._round(x)

    def dtype(self, dtype: DTypeLike) -> np.dtype[Any]:
        return _expect_float32(self, dtype)


class Portable(Arithmetic):
    """The same bits on every machine, by operands of at most `bits` bits and exact sums in float64.

    x is rounded to q 2^u, q whole and |q| <= 2^bits, with one u for a whole tensor of a
    micro-batch, from its largest element. Raises ValueError unless 4 <= bits <= 16.
    """

    name = "portable"
    rounds = True

    def __init__(self, bits: int = BITS) -> None:
        if bits not in range(FEWEST, MOST + 1):
            raise ValueError(
                f"Portable: found bits {bits!r}, expected a whole number from {FEWEST} to {MOST}"
            )
        self.bits = int(bits)

    def __repr__(self) -> str:
        return f"Portable(bits={self.bits})"

    def check(self, thing: object, name: str) -> None:
        if not is_portable(thing):
            raise ValueError(
                f"{name}: not declared portable, so its bits may depend on the machine; use "
                "arithmetic float32, or see docs/portable.md for what @portable promises"
            )

    def check_terms(self, owner: str, count: int, more_bits: int = 0) -> None:
        """The products are whole numbers of 2 bits + more_bits bits, in some unit; see `DIGITS`."""
        if 2 * self.bits + more_bits + bit_length(count) > DIGITS:
            raise ValueError(
                f"{owner}: found sums of {count:,} products of {self.bits} bits each, expected at "
                f"most {DIGITS} bits in all; use smaller micro-batches or fewer bits"
            )

    def dtype(self, dtype: DTypeLike) -> np.dtype[Any]:
        _expect_float32(self, dtype)
        return np.dtype(np.float64)

    def exp(self, x: Array, out: Array | None = None) -> Array:
        return elementary.exp(x, out)

    def log(self, x: Array, out: Array | None = None) -> Array:
        return elementary.log(x, out)

    def log1p(self, x: Array) -> Array:
        """The logarithm of the rounded sum: off by up to 2^-53, which for a loss is little."""
        return elementary.log(1.0 + x)

    def softplus(self, x: Array) -> Array:
        return np.maximum(x, 0) + self.log1p(self.exp(-np.abs(x)))

    def tanh(self, x: Array, out: Array | None = None) -> Array:
        return elementary.tanh(x, out)

    def power(self, x: float, n: int) -> float:
        return elementary.power(x, n)

    def powers(self, x: float, count: int) -> Array:
        return np.array([elementary.power(x, n) for n in range(count)])

    def root(self, x: float, n: int) -> float:
        return float(elementary.exp(elementary.log(np.asarray([x])) / n)[0])

    def cos(self, x: float) -> float:
        return elementary.cos(x)

    def cos_sin(self, x: Array) -> tuple[Array, Array]:
        return elementary.sin(math.pi / 2 - np.abs(x)), elementary.sin(x)

    def sum(
        self,
        x: Array,
        axis: int | tuple[int, ...] | None = 0,
        *,
        dtype: DTypeLike | None = None,
        out: Array | None = None,
        keepdims: bool = False,
        scratch: Array | None = None,
    ) -> Any:
        """Exact, hence of any order, for terms that are rounded to 2^-(53 - log2 terms) of the
        largest.
        """
        axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        num_terms = math.prod(x.shape[each] for each in axes)
        rounded = np.empty(x.shape, np.float64) if scratch is None else scratch
        to_grid(x, grid_unit(x, DIGITS - bit_length(num_terms)), rounded)
        return add_up(rounded, axis, None, out, keepdims)

    def generator(self, bits: np.random.Philox) -> Generator:
        return IntegerGenerator(bits)


FLOAT = Float()
# By the names that options and files have for them.
ARITHMETICS: dict[str, Callable[..., Arithmetic]] = {
    "float32": Float,
    "portable": Portable,
    **{name: partial(Mixed, name) for name in HALVES},
}


def _expect_float32(arithmetic: Arithmetic, dtype: DTypeLike) -> np.dtype[Any]:
    if np.dtype(dtype) != np.float32:
        raise ValueError(
            f"arithmetic {arithmetic.name}: found parameters of {np.dtype(dtype).name}, expected "
            "float32"
        )
    return np.dtype(dtype)


def loss_scale(gradient: Array) -> float:
    """A power of two that brings the largest of a micro-batch's gradients to between 8 and 16.

    Then float16 holds what is up to 4,000 times as large, and keeps some bits of what is down to
    10^8 times smaller. It is taken from the numbers at hand, so it is nothing to be tuned, or kept
    from one step to the next. 1 for gradients that are zero or not finite.
    """
    largest = float(abs(gradient).max(initial=0))
    if not 0 < largest < math.inf:
        return 1.0
    return math.ldexp(1.0, min(4 - math.frexp(largest)[1], MOST_SCALE))


def arithmetic_of(given: str | Arithmetic) -> Arithmetic:
    """An arithmetic, or the one of that name; raises ValueError."""
    if isinstance(given, Arithmetic):
        return given
    if given not in ARITHMETICS:
        known = ", ".join(ARITHMETICS)
        raise ValueError(f"arithmetic: found {given!r:.60}, expected one of {known}")
    return ARITHMETICS[given]()


def common_arithmetic(owner: str, arithmetics: Sequence[Arithmetic]) -> Arithmetic:
    """The arithmetic of all of these networks, at least one; raises ValueError if there are two."""
    first, *others = arithmetics
    for other in others:
        if repr(other) != repr(first):
            raise ValueError(
                f"{owner}: found {first!r} and {other!r}, expected networks of one arithmetic"
            )
    return first


def bit_length(count: int) -> int:
    """By how many bits a sum of `count` terms may be longer than the longest of them."""
    return max(0, count - 1).bit_length()


def grid_unit(x: Array, bits: int) -> float:
    """The power of two in which the largest element of `x` has at most `bits` bits."""
    largest = max(float(x.max(initial=0)), -float(x.min(initial=0)))
    _, exponent = math.frexp(largest)  # largest < 2^exponent; 0 for what is not finite
    return math.ldexp(1.0, max(exponent, LOWEST_EXPONENT) - bits)


def to_grid(x: Array, unit: float, out: Array) -> Array:
    """`x` rounded to multiples of `unit` (ties to even), for |x| < 2^51 units; never -0.

    x + 1.5 * 2^52 units lies where float64 numbers are one unit apart, so the addition rounds, and
    the subtraction is exact. Not finite numbers stay what they are. `out`, float64, may be `x`.
    """
    shift = 1.5 * 2.0**52 * unit
    np.add(x, shift, out=out, dtype=np.float64)
    return np.subtract(out, shift, out=out)


def rounded(x: Array, arithmetic: Arithmetic) -> Array:
    """`x` as an operand of matrix products in `arithmetic`: itself, or a copy on a grid."""
    if not arithmetic.rounds:
        return x
    return to_grid(x, grid_unit(x, arithmetic.bits), np.empty(x.shape, np.float64))


class IntegerGenerator:
    """Random numbers by integers alone. Nearly normal ones are sums of 12 uniform ones of 16 bits.

    (Irwin and Hall, less the mean.) Mean 0, variance 1, none beyond 6. NumPy's Generator takes log
    and exp of the C library in the tails.
    """

    def __init__(self, bits: np.random.Philox) -> None:
        self._bits = bits

    def standard_normal(self, size: Shape) -> Array:
        """As Generator.standard_normal."""
        count = math.prod(size)
        words = self._bits.random_raw(3 * count).astype("<u8", copy=False)
        sums = np.add.reduce(words.view("<u2").reshape(count, 12), axis=1, dtype=np.int64)
        return ((sums - 6 * 65535) / 65536).reshape(size)

    def permutation(self, count: int) -> Array:
        """As Generator.permutation, in the order of as many random words."""
        return np.argsort(self._bits.random_raw(count), kind="stable")
