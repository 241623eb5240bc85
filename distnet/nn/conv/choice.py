"""The algorithms of Conv2d by name, and which of them it takes for a geometry."""

from __future__ import annotations

from distnet.base.arithmetic import DIGITS, FLOAT, Arithmetic
from distnet.nn.conv.algorithm import Algorithm, halves_evenly
from distnet.nn.conv.blocked import BlockedConvolution
from distnet.nn.conv.depthwise import DepthwiseConvolution
from distnet.nn.conv.exact_winograd import ExactWinograd2, ExactWinograd4
from distnet.nn.conv.few_channels import FewChannelConvolution
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.im2col import Im2colConvolution
from distnet.nn.conv.winograd import WinogradConvolution
from distnet.nn.conv.winograd_parts import WinogradInParts
from distnet.nn.conv.winograd_pool import PooledTiling


class Winograd2(WinogradConvolution):
    """F(2x2, 3x3) and F(2x2, 5x5)."""

    m = 2
    expects = "one group, stride 1, dilation 1, equal padding, a kernel of 3 x 3 or 5 x 5"

    @classmethod
    def pooled(cls, g: Geometry) -> type[Algorithm] | None:
        """A tile is a window."""
        return PooledWinograd2 if halves_evenly(g) else None


class Winograd4(WinogradConvolution):
    """F(4x4, 3x3)."""

    m = 4
    expects = "one group, stride 1, dilation 1, equal padding, a kernel of 3 x 3"

    @classmethod
    def pooled(cls, g: Geometry) -> type[Algorithm] | None:
        """A tile is four windows."""
        return PooledWinograd4 if halves_evenly(g) else None


class PooledWinograd2(Winograd2):
    """F(2x2) whose tiles are pooled."""

    tiling = PooledTiling


class PooledWinograd4(Winograd4):
    """F(4x4) whose tiles are pooled."""

    tiling = PooledTiling


ALGORITHMS: dict[str, type[Algorithm]] = {
    "im2col": Im2colConvolution,
    "few_channels": FewChannelConvolution,
    "blocked": BlockedConvolution,
    "winograd2": Winograd2,
    "winograd4": Winograd4,
    "winograd_parts": WinogradInParts,
    "depthwise": DepthwiseConvolution,
}
# Those whose sums are exact where operands are on grids.
PORTABLE: dict[str, type[Algorithm]] = {
    "im2col": Im2colConvolution,
    "few_channels": FewChannelConvolution,
    "blocked": BlockedConvolution,
    "winograd2": ExactWinograd2,
    "winograd4": ExactWinograd4,
    # Whose sums are the same as theirs, being exact.
    "winograd_parts": BlockedConvolution,
    "depthwise": BlockedConvolution,
}
# What a multiplication costs that is saved by more transforms, in those of the others.
_COSTS = {"winograd_parts": 1.6}
_FEW = 4  # channels of which a run is too short to be copied by itself


def algorithm_for(g: Geometry, name: str, arithmetic: Arithmetic = FLOAT) -> type[Algorithm]:
    """The algorithm of that name, or by "auto" the fastest; ValueError unless it suits."""
    name = fastest_algorithm(g, arithmetic) if name == "auto" else name
    found = _table(arithmetic)[name]
    if not found.suits(g):
        raise ValueError(
            f"Conv2d: algorithm {name} expects {found.expects}; found kernel {g.kernel}, stride "
            f"{g.stride}, pad {g.pad}, dilation {g.dilation}, groups {g.groups}; use another one, "
            "or auto"
        )
    if arithmetic.rounds and not found.fits(g, arithmetic.bits):
        raise ValueError(
            f"Conv2d: found algorithm {name} with {g.c} channels, {g.f} filters and operands of "
            f"{arithmetic.bits} bits, expected sums of at most {DIGITS} bits; use fewer bits"
        )
    return found


def fastest_algorithm(g: Geometry, arithmetic: Arithmetic = FLOAT) -> str:
    """The name of the algorithm that multiplies least, among those that suit the geometry."""
    known = _table(arithmetic)
    if g.c <= _FEW and known["few_channels"].suits(g):
        return "few_channels"
    if DepthwiseConvolution.suits(g) and not arithmetic.rounds:
        return "depthwise"
    names = [n for n in ("winograd4", "winograd2", "winograd_parts") if known[n].suits(g)]
    exact = [n for n in names if not arithmetic.rounds or known[n].fits(g, arithmetic.bits)]
    return min(
        [*exact, "blocked"], key=lambda name: _COSTS.get(name, 1) * known[name].multiplications(g)
    )


def faster_for(n: int, found: type[Algorithm], g: Geometry) -> type[Algorithm]:
    """What was found for a geometry, or the direct product if a batch of n is too little for it."""
    return found if found.pays(g, n) else BlockedConvolution


def _table(arithmetic: Arithmetic) -> dict[str, type[Algorithm]]:
    return PORTABLE if arithmetic.rounds else ALGORITHMS
