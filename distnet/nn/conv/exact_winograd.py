"""Winograd's convolution of operands on grids, in which nothing is ever rounded.

Every number in it is a whole number of some unit, and exact as long as it has at most 53 bits. A
transform makes numbers longer: by how many bits at worst is what `growth` computes, from the
constant matrices, in integers. For that the points are 0, 1, -1, 2, -2, with which G has thirds,
and those vanish: filters are multiples of 9 units, and

    G w G^T = (3 G) (w / 9) (3 G)^T.

So what comes out is the same as from any other algorithm, bit for bit. docs/portable.md derives the
budgets; the proof that it is enough to look at the last number of a path is in `growth`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import ClassVar

import numpy as np

from distnet.base.arithmetic import DIGITS, grid_unit, to_grid
from distnet.base.arrays import Array
from distnet.nn.conv.algorithm import NINE, Algorithm, halves_evenly
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.winograd import BackwardViews, WinogradConvolution, flat
from distnet.nn.conv.winograd_pool import PooledTiling
from distnet.nn.conv.winograd_tiles import Tiling
from distnet.nn.conv.winograd_transforms import EXACT_POINTS, transforms

LIMIT = 2**DIGITS  # up to it whole numbers are exact
SPLIT_BITS = 27  # of the upper half of dU
FEWEST_TILES = 2048  # that dU has to be able to add up


@dataclass(frozen=True)
class Growth:
    """By what factor numbers are longer, in units of their last bit, than products of operands.

    forward: Y, without the sum over channels. tiles: dU, without that over tiles. back: dx, without
    that over filters. filters: what G^T dU G makes of the halves of dU.
    """

    forward: int
    tiles: int
    back: int
    filters: int


@cache
def growth(m: int, k: int) -> Growth:
    """The worst case of F(m x m, k x k) with `EXACT_POINTS`, for operands of any signs.

    Along one axis a number y = sum_i c_i x_i, of x_i that are whole numbers of units u_i and at
    most b_i, is a whole number of units min |c_i| u_i, rounded down to powers of two, and at most
    sum |c_i| b_i; so is each partial sum, in any order. The *length* of y is the second over the
    first. Both axes multiply: their transforms are the same and act apart.

    Lengths only grow on the way: y is at least as long as each x_i that it is made of, since
    |c_i| b_i / (|c_i| u_i rounded down) >= b_i / u_i, and a product as long as both its factors. So
    if the last number of each path has at most 53 bits, every number before it has.
    """
    bt, g, at = (_fractions(matrix) for matrix in transforms(m, k, EXACT_POINTS[m + k - 1]))
    g = [[3 * c for c in row] for row in g]
    points = range(m + k - 1)
    by_point = list(zip(*at, strict=True))
    v, u, a = ([_sum(row) for row in matrix] for matrix in (bt, g, by_point))
    forward = max(_length([(row[i], _product(v[i], u[i])) for i in points]) for row in at)
    tiles = max(_length([(Fraction(1), _product(v[i], a[i]))]) for i in points)
    back = max(  # pixel j of a tile, and the same pixel as the pixels j + m, ... of others
        _length([(bt[i][jj], _product(a[i], u[i])) for jj in range(j, len(bt), m) for i in points])
        for j in range(m)
    )
    one = Fraction(1), Fraction(1)
    filters = max(_length([(g[i][j], one) for i in points]) for j in range(k))
    return Growth(*(math.ceil(length**2) for length in (forward, tiles, back, filters)))


Range = tuple[Fraction, Fraction]  # the largest magnitude, the unit


def _sum(coefficients: Sequence[Fraction]) -> Range:
    """The range of a sum of numbers up to 1, in units of 1, with these coefficients."""
    return _combined([(c, (Fraction(1), Fraction(1))) for c in coefficients])


def _combined(terms: list[tuple[Fraction, Range]]) -> Range:
    used = [(abs(c), bound, unit) for c, (bound, unit) in terms if c]
    return sum((c * b for c, b, _ in used), Fraction(0)), min(_power(c) * u for c, _, u in used)


def _product(x: Range, y: Range) -> Range:
    return x[0] * y[0], x[1] * y[1]


def _length(terms: list[tuple[Fraction, Range]]) -> Fraction:
    bound, unit = _combined(terms)
    return bound / unit


def _power(c: Fraction) -> Fraction:
    """The largest power of two of which `c` > 0 is a whole multiple."""
    if c.denominator & (c.denominator - 1):
        raise ValueError(f"{c} is not a whole number of any power of two")
    return Fraction(c.numerator & -c.numerator, c.denominator)


def _fractions(matrix: Array) -> list[list[Fraction]]:
    """What it was before rounding: all elements are whole in 1 / 24."""
    return [[Fraction(round(24 * c), 24) for c in row] for row in matrix]


class ExactTiling(Tiling):
    """Tiles with exact transforms."""

    exact = True


class ExactPooledTiling(PooledTiling):
    """Tiles with exact transforms, pooled."""

    exact = True


class ExactWinograd(WinogradConvolution):
    """What F(2x2) and F(4x4) share: filters in ninths, and sums of dU that are short enough."""

    tiling: ClassVar[type[Tiling]] = ExactTiling
    splits = True

    @classmethod
    def fits(cls, g: Geometry, bits: int) -> bool:
        """As for all algorithms; and dU of some thousand tiles, see `work_on_grids`."""
        growing, pairs = growth(cls.m, g.kh), 2 ** (2 * bits)
        longest = max(growing.forward * g.c, growing.back * g.f, growing.tiles * FEWEST_TILES)
        # The halves of dU: the upper one has SPLIT_BITS + 1 bits, the lower one what is left.
        half = 2 ** max(SPLIT_BITS + 1, DIGITS - SPLIT_BITS)
        return super().fits(g, bits) and max(pairs * longest, half * growing.filters) <= LIMIT

    def work_on_grids(self, bits: int) -> None:
        """Cuts the sum over all tiles where it might grow beyond 53 bits: see `self.sums`."""
        most = LIMIT // (growth(self.m, self.geometry.kh).tiles * 2 ** (2 * bits))
        tiles_of_row, count, self.sums = self.tiles.tw * self.n, 0, set()
        for number, rows in enumerate(self.tiles.blocks):
            tiles = len(rows) * tiles_of_row
            if tiles > most:
                raise ValueError(
                    f"Conv2d: found {tiles:,} tiles to be added up at a time, expected at most "
                    f"{most:,} with operands of {bits} bits; use smaller micro-batches or fewer "
                    "bits"
                )
            if count + tiles > most:
                self.sums.add(number)
                count = 0
            count += tiles
        self.sums.add(len(self.tiles.blocks))

    def load(self, weight: Array, bias: Array | None) -> None:
        """Takes filters that are multiples of 9 units."""
        ninths = self.memory.constant("ninths", weight.shape, self.dtype)
        super().load(np.divide(weight, NINE, out=ninths), bias)

    def _add_filter_gradient(self, views: BackwardViews, is_first: bool) -> None:
        """dg = (3 G)^T dU (3 G) / 9, of each half of dU apart.

        Of both together it might be too long. Their sum is not: it is 9 times a sum of products of
        pixels and gradients. So is what other sums of tiles add to it; but a half by itself added
        to those might again be too long.
        """
        to_filters, dfilters = self.tiles.gg.T, self._dfilters(views)
        high, part = views.rest[0].reshape(views.du.shape), views.rest[1].reshape(dfilters.shape)
        to_grid(views.du, grid_unit(views.du, SPLIT_BITS), high)
        np.subtract(views.du, high, out=views.du)
        np.matmul(to_filters, flat(high), out=part)
        of_low = views.rest[0][: part.size].reshape(part.shape)  # in the place of the upper half
        np.matmul(to_filters, flat(views.du), out=of_low)
        np.add(part, of_low, out=dfilters if is_first else part)
        if not is_first:
            np.add(dfilters, part, out=dfilters)

    def _deliver(self, dfilters: Array, dweight: Array) -> None:
        super()._deliver(np.divide(dfilters, NINE, out=dfilters), dweight)


class ExactWinograd2(ExactWinograd):
    """F(2x2, 3x3) and F(2x2, 5x5)."""

    m = 2
    expects = "one group, stride 1, dilation 1, equal padding, a kernel of 3 x 3 or 5 x 5"

    @classmethod
    def pooled(cls, g: Geometry) -> type[Algorithm] | None:
        """A tile is a window."""
        return ExactPooledWinograd2 if halves_evenly(g) else None


class ExactWinograd4(ExactWinograd):
    """F(4x4, 3x3)."""

    m = 4
    expects = "one group, stride 1, dilation 1, equal padding, a kernel of 3 x 3"

    @classmethod
    def pooled(cls, g: Geometry) -> type[Algorithm] | None:
        """A tile is four windows."""
        return ExactPooledWinograd4 if halves_evenly(g) else None


class ExactPooledWinograd2(ExactWinograd2):
    """F(2x2) whose tiles are pooled."""

    tiling = ExactPooledTiling


class ExactPooledWinograd4(ExactWinograd4):
    """F(4x4) whose tiles are pooled."""

    tiling = ExactPooledTiling
