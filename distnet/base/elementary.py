"""exp, log, tanh, sin, cos and powers made of single IEEE 754 operations: the same bits everywhere.

A C library's functions, and NumPy's, which run on whatever SIMD units a processor has, differ in
the last bit from one machine to the next. `+ - * /` and rounding to a whole number may not: IEEE
754 says what each of them returns. So here every operation is a NumPy call, or a step of the
interpreter, of its own, and no compiler can fuse two of them into one that rounds once. float64 in
and out; `Portable` in `arithmetic` calls these.
"""

from __future__ import annotations

import math

import numpy as np

from distnet.base.arrays import Array

LOG2_E = 1.4426950408889634
LN2_HI = 0.6931471803691238  # 32 bits of ln 2: times a whole number below 2^20 it is exact
LN2_LO = 1.9082149292705877e-10  # the rest
# Between these e^x is neither denormal nor infinite; what is beyond counts as they do.
LOWEST, HIGHEST = -700.0, 710.0
INVERSE_FACTORIALS = [1.0 / math.factorial(n) for n in range(14)]
# 1, 1/3, 1/5 ... of the series of artanh
ODD_INVERSES = [1.0 / n for n in range(1, 24, 2)]


def exp(x: Array, out: Array | None = None) -> Array:
    """e^x, off by at most 1.2 units in the last place; `out` may be `x`.

    x = k ln 2 + r with a whole number k and |r| <= ln 2 / 2; e^r is a Taylor polynomial of degree
    13. What is below -700 counts as -700; above 709.78 it is infinite.
    """
    k, p = _reduced(x)
    np.add(p, 1.0, out=p)
    with np.errstate(over="ignore"):
        return np.ldexp(p, k, out=out)


def tanh(x: Array, out: Array | None = None) -> Array:
    """(1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x, off by a few units in the last place."""
    doubled = np.abs(x)
    np.multiply(doubled, -2.0, out=doubled)
    k, p = _reduced(doubled)
    # e^-2|x| - 1: where k = 0 the polynomial without its 1, so that no digits cancel.
    whole = np.ldexp(np.add(p, 1.0), k)
    less_one = np.where(k == 0, p, np.subtract(whole, 1.0))
    magnitude = np.divide(less_one, np.add(less_one, 2.0))
    return np.copysign(magnitude, x, out=out)


def log(x: Array, out: Array | None = None) -> Array:
    """ln x, off by at most 3 units in the last place; minus infinity for 0. `out` may be `x`.

    x = m 2^e with m from sqrt(1/2) to sqrt(2), and ln m = 2 artanh((m - 1) / (m + 1)).
    """
    m, e = np.frexp(np.multiply(x, 1.0, dtype=np.float64))  # a ufunc, as in `_reduced`
    is_zero, is_low = np.equal(m, 0), np.less(m, 0.7071067811865476)
    m, e = np.where(is_low, np.add(m, m), m), np.subtract(e, is_low, dtype=np.float64)
    e = np.where(is_zero, -np.inf, e)  # (A GPU would have to count what an index of bools means.)
    f = np.divide(np.subtract(m, 1.0), np.add(m, 1.0))
    square = np.multiply(f, f)
    p = np.full_like(f, ODD_INVERSES[-1])
    for coefficient in ODD_INVERSES[-2::-1]:
        np.multiply(p, square, out=p)
        np.add(p, coefficient, out=p)
    np.multiply(p, f, out=p)
    np.multiply(p, 2.0, out=p)
    np.add(np.multiply(e, LN2_LO), p, out=p)
    return np.add(np.multiply(e, LN2_HI), p, out=out)


def power(x: float, n: int) -> float:
    """x^n for a whole number n >= 0, by squaring: `**` is the C library's pow."""
    result = 1.0
    while n:
        if n & 1:
            result *= x
        x *= x
        n >>= 1
    return result


def cos(x: float) -> float:
    """The cosine for 0 <= x <= pi, off by about 2^-53: the sine of pi/2 - x."""
    return float(sin(np.asarray(math.pi / 2 - x)))


def sin(x: Array) -> Array:
    """The sine, a Taylor series of degree 25: off by 2^-53 near 0, 2^-48 near pi.

    Whole turns beyond |x| <= pi are taken off by a 2 pi that is rounded, at 2^-50 for each of them.
    """
    turns = np.rint(np.multiply(x, 0.5 / math.pi))
    x = np.subtract(x, np.multiply(turns, 2 * math.pi))
    square = np.multiply(x, x)
    minus, total = np.negative(square), np.zeros_like(square)
    for n in range(25, 0, -2):
        total = np.multiply(total, minus)
        total = np.add(total, 1.0 / math.factorial(n))
    return np.multiply(total, x)


def _reduced(x: Array) -> tuple[Array, Array]:
    """(k, e^r - 1) for x = k ln 2 + r; k as int32."""
    # As the type of a ufunc, which an array on a device takes as well.
    r = np.minimum(np.maximum(x, LOWEST, dtype=np.float64), HIGHEST)
    k = np.multiply(r, LOG2_E)
    np.rint(k, out=k)
    np.subtract(r, np.multiply(k, LN2_HI), out=r)
    np.subtract(r, np.multiply(k, LN2_LO), out=r)
    p = np.full_like(r, INVERSE_FACTORIALS[-1])
    for coefficient in INVERSE_FACTORIALS[-2:0:-1]:
        np.multiply(p, r, out=p)
        np.add(p, coefficient, out=p)
    np.multiply(p, r, out=p)
    return np.nan_to_num(k).astype(np.int32), p  # of NaN, p is NaN
