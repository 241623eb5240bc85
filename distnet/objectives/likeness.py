"""How near a picture comes to the content of one and to the style of another, for a network's eyes.

So it is decided what painting in a style means (book section 8.5.1); `style` makes pictures by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape
from distnet.base.errors import DataError
from distnet.base.images import pixels
from distnet.nn import arguments
from distnet.nn.features import Features
from distnet.nn.layers.gram import GramMatrix
from distnet.nn.network import Network

Style = list[Array]  # the Gram matrices of a picture, as vectors `(1, C' * C')`


class Content(NamedTuple):
    """What is kept of a picture: its features `(1, C', H', W')` at a tap, and their variance."""

    features: Array
    variance: float


class Distances(NamedTuple):
    """How far a picture is from a content and from a style; see `Likeness`."""

    content: float
    style: float


class Likeness:
    """How near pictures of one shape (C, H, W) come to a content and to a style.

    style_taps, content_tap: layers of the network whose outputs are compared. With F the features
    of a picture at a tap, G their Gram matrix, F' and G' those of the content and of the style,

        content distance = mean of (F - F')² / variance of F'
        style distance   = mean over the style's taps of |G - G'|² / |G'|²

    (Gatys, Ecker and Bethge 2015, arXiv:1508.06576, eq. 1 and 4, with other constants: these make
    layers comparable, and networks.) Pictures are floats from 0 to 1.
    """

    def __init__(
        self, network: Network, shape: Shape, style_taps: Sequence[str], content_tap: str
    ) -> None:
        if isinstance(style_taps, str) or not style_taps:
            expected = 'names of layers, such as ["relu1", "relu2"]'
            raise arguments.refusal("Likeness", "style_taps", style_taps, expected)
        names = [name for name, _ in network.body.named_layers()]
        wanted = {*style_taps, content_tap}
        taps = [name for name in names if name in wanted] + sorted(wanted.difference(names))
        self.features = Features(network, taps, shape)
        self._arithmetic = self.features.network.arithmetic
        self._content_at = taps.index(content_tap)
        self._style_at = [taps.index(tap) for tap in style_taps]
        self._grams = [GramMatrix() for _ in style_taps]
        for gram, at in zip(self._grams, self._style_at, strict=True):
            gram.compute_in(self._arithmetic)
            gram.build(self.features.shapes[at], network.dtype)

    def content(self, picture: Array) -> Content:
        """Of a picture `(C, H, W)`."""
        features = self._look(picture)[self._content_at].copy(order="K")
        mean = self._arithmetic.sum(features, None, dtype=np.float64) / features.size
        return Content(features, self._square(features - mean) / features.size)

    def style(self, picture: Array) -> Style:
        """Of a picture `(C, H, W)`."""
        grams = [gram.copy() for gram in self._style(self._look(picture))]
        if not all(map(self._square, grams)):
            raise DataError(
                "style: found a picture in which the network sees nothing, expected features at all"
                " style_taps; is it black?"
            )
        return grams

    def distances(self, picture: Array, content: Content, style: Style) -> Distances:
        """Of a picture `(C, H, W)`."""
        features = self._look(picture)
        difference = features[self._content_at] - content.features
        self._to_content = difference, difference.size * content.variance
        self._to_style = [
            (gram - known, self._square(known))
            for gram, known in zip(self._style(features), style, strict=True)
        ]
        of_style = 0.0
        for apart, length in self._to_style:
            of_style += self._square(apart) / length
        return Distances(
            self._square(difference) / self._to_content[1], of_style / len(self._to_style)
        )

    def gradient(self, content_weight: float, style_weight: float) -> Array:
        """The derivative of the weighted sum of the last `distances` by the pixels, `(C, H, W)`."""
        gradients: list[Array | None] = [None] * len(self.features.taps)
        difference, scale = self._to_content
        gradients[self._content_at] = difference * (2 * content_weight / scale)
        factor = 2 * style_weight / len(self._grams)
        parts = zip(self._grams, self._style_at, self._to_style, strict=True)
        for gram, at, (difference, scale) in parts:
            dfeatures = gram.backward(difference * (factor / scale))
            known = gradients[at]
            gradients[at] = dfeatures if known is None else known + dfeatures
        return self.features.backward(gradients)[0]

    def _square(self, x: Array) -> float:
        return square(x, self._arithmetic)

    def _look(self, picture: Array) -> list[Array]:
        return self.features.forward(self.features.network.as_input(picture[None], copy=False))

    def _style(self, features: list[Array]) -> list[Array]:
        return [g.forward(features[at]) for g, at in zip(self._grams, self._style_at, strict=True)]


def style_of(
    network: Network, picture: Array, style_taps: Sequence[str], content_tap: str
) -> Style:
    """The style of a picture `(C, H, W)` of any size, for a `Likeness` at the same taps."""
    picture = as_floats(picture, network.dtype)
    return Likeness(network, picture.shape, style_taps, content_tap).style(picture)


def as_floats(pictures: Array, dtype: DTypeLike = np.float32) -> Array:
    """Bytes as floats from 0 to 1; floats have to be that already. A new array of any shape."""
    found = pixels(pictures, "pictures")
    floats = found.astype(dtype) / np.dtype(dtype).type(255 if found.dtype == np.uint8 else 1)
    if not (floats.min() >= 0 and floats.max() <= 1):
        raise DataError(
            f"pictures: found floats from {floats.min():.4g} to {floats.max():.4g}, expected 0 to 1"
        )
    return floats


def square(x: Array, arithmetic: Arithmetic = FLOAT) -> float:
    """|x|², added up in float64."""
    squares = np.square(x, dtype=np.float64)
    return float(arithmetic.sum(squares, None, scratch=squares))
