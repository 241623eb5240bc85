"""The algorithms of Conv2d by name, and which of them it takes for a geometry."""

from __future__ import annotations

from distnet.nn.conv.algorithm import Algorithm, halves_evenly
from distnet.nn.conv.blocked import BlockedConvolution
from distnet.nn.conv.few_channels import FewChannelConvolution
from distnet.nn.conv.geometry import Geometry
from distnet.nn.conv.im2col import Im2colConvolution
from distnet.nn.conv.winograd import WinogradConvolution
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
}
_FEW = 4  # channels of which a run is too short to be copied by itself


def fastest_algorithm(g: Geometry) -> str:
    """The name of the algorithm that multiplies least, among those that suit the geometry."""
    if g.c <= _FEW and ALGORITHMS["few_channels"].suits(g):
        return "few_channels"
    names = [n for n in ("winograd4", "winograd2", "blocked") if ALGORITHMS[n].suits(g)]
    return min(names, key=lambda name: ALGORITHMS[name].multiplications(g))
