"""Pictures in the style of others: what is trained is their pixels (book section 8.5.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic, portable
from distnet.base.arrays import Array, Shape
from distnet.base.errors import DataError
from distnet.base.images import pixels
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.data.dataset import Samples
from distnet.nn import arguments
from distnet.nn.features import Features, arithmetic_of_features
from distnet.nn.initializers import constant
from distnet.nn.layers.gram import GramMatrix
from distnet.nn.network import Network
from distnet.nn.parameters import Parameter, Parameters, Statistic
from distnet.objectives.objective import Objective, Ready

Mirror = tuple[slice, slice, slice]  # what makes a mirrored picture `(C, H, W)`, and undoes it
AS_IT_IS, BACKWARDS = slice(None), slice(None, None, -1)
MIRRORS: tuple[Mirror, ...] = tuple(
    (slice(None), down, across)
    for down in (AS_IT_IS, BACKWARDS)
    for across in (AS_IT_IS, BACKWARDS)
)

T = TypeVar("T")

DARKEST = 0.02  # of a picture that is begun with: a sigmoid never leaves 0 and 1 themselves

Place = tuple[int, slice, slice, slice]  # a part of pictures: number, channels, rows, columns
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
        return [gram.copy() for gram in self._style(self._look(picture))]

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
        """Of the weighted sum of the last `distances` by the pixels of the picture, `(C, H, W)`."""
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
        return self.features.forward(self.features.network.as_input(picture[None]))

    def _style(self, features: list[Array]) -> list[Array]:
        return [g.forward(features[at]) for g, at in zip(self._grams, self._style_at, strict=True)]


class Canvas:
    """Pictures as parameters: pixels `(P, C, H, W)` are sigmoids of what is trained.

    So no step, however long, leaves 0 to 1.
    """

    def __init__(self, pictures: Array, arithmetic: Arithmetic = FLOAT) -> None:
        start = np.clip(pictures, DARKEST, 1 - DARKEST)
        self._dtype, self._arithmetic = start.dtype, arithmetic
        self.logits = Parameter(start.shape, constant(0), decays=False)
        self.logits.value = arithmetic.log(start / (1 - start))

    def pixels(self, place: Place | tuple[()] = ()) -> Array:
        """What lies at a place of the pictures, in a new array."""
        logits = self.logits.value[place].astype(self._dtype, copy=False)
        return 1 / (1 + self._arithmetic.exp(-logits))

    def parameters(self) -> Iterator[tuple[str, Parameter]]:
        yield "logits", self.logits

    def statistics(self) -> Iterator[tuple[str, Statistic]]:
        return iter(())

    def update_statistics(self) -> None:
        """There are none."""

    def refresh(self) -> None:
        """Nothing is derived from the values."""


@portable
class StyleTransfer(Objective):
    """Makes pictures look as if they were painted like others.

    network: a chain whose features are compared, or several of one kind; they stay as they are.
    Distances are the means of what the networks find: what one of them can be deceived with, the
    others see. contents: `(P, C, H, W)`; styles: P pictures `(C, h, w)` of any size; bytes, or
    floats from 0 to 1. style_taps, content_tap: see `Likeness`.

    What is trained is the pixels of P pictures, `pictures`, and nothing else. They start as the
    contents. The loss of one is

        content distance + style_weight * style distance + smoothness * total variation

    the last being the mean squared difference of neighbours, across and down; style_weight is one
    number, or P of them. It is compared as a
    whole or, with `tile`, in squares of that side, see `tiles`: then the style has to be found in
    each of them, and so has the content, whose variance is that of the whole picture.

    mirrored: in each step each network sees a tile, and the pictures that it is compared with, as
    they are or mirrored, across and down, by keyed draws. A mirrored picture is for a network what
    the picture is for one with mirrored kernels, so each stands for four, at the price of one.

    It computes in the arithmetic of the networks. Metrics: loss, content and style, the mean
    distances.
    """

    counts = ("content", "style")

    def __init__(
        self,
        network: Network | Sequence[Network],
        contents: Array,
        styles: Sequence[Array],
        *,
        style_taps: Sequence[str],
        content_tap: str,
        style_weight: float | Sequence[float] = 100.0,
        smoothness: float = 1.0,
        tile: int | None = None,
        mirrored: bool = False,
    ) -> None:
        networks = [network] if isinstance(network, Network) else list(network)
        if not networks:
            raise ValueError("StyleTransfer: found no network, expected one or more")
        arithmetic = _arithmetic(networks)
        self.contents = as_floats(contents, networks[0].dtype)
        num_pictures, *shape = self.contents.shape
        if len(shape) != 3 or len(styles) != num_pictures:
            raise ValueError(
                f"StyleTransfer: found contents {self.contents.shape} and {len(styles)} styles, "
                "expected (P, C, H, W) and P of them"
            )
        self.style_weights, self.smoothness = _each(style_weight, num_pictures), smoothness
        self.canvas = Canvas(self.contents, arithmetic)
        self.parameters = Parameters({"": self.canvas}, networks[0].parameters.dtype, arithmetic)
        self.tile_shape, self._grid = _tiling(tile, *shape[1:])
        taps = style_taps, content_tap
        tile_shape = shape[0], *self.tile_shape
        self._likenesses = [Likeness(each, tile_shape, *taps) for each in networks]
        wholes = [Likeness(each, tuple(shape), *taps) for each in networks]
        self._mirrors = MIRRORS if mirrored else MIRRORS[:1]
        self._contents = [
            [self._mirrored(whole.content, each) for whole in wholes] for each in self.contents
        ]
        self._styles = []
        for style in (as_floats(each, networks[0].dtype) for each in styles):
            likenesses = [Likeness(each, style.shape, *taps) for each in networks]
            self._styles.append([self._mirrored(each.style, style) for each in likenesses])

    @property
    def pictures(self) -> Array:
        """What the pictures look like now, `(P, C, H, W)` from 0 to 1, in a new array."""
        return self.canvas.pixels()

    @property
    def tiles(self) -> Samples:
        """What `fit` is given: the numbers of all tiles, as inputs and once more as targets.

        Without `tile` a picture is one. Steps on all of them in micro-batches of one tile,
        `batch_size=len(tiles.inputs), micro_batch_size=1`, let the ranks share them out. Tiles lie
        side by side on a grid that begins elsewhere in each step, by a keyed draw, so that their
        borders leave no traces; those that would stick out are moved inside.
        """
        numbers = np.arange(len(self.contents) * self._grid[0] * self._grid[1])
        return Samples(numbers, numbers)

    def as_input(self, inputs: Array) -> Array:
        return inputs

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        divisor = self.divisor(targets) if divisor is None else divisor
        grads, sums = self.canvas.logits.grad, np.zeros(3)
        grads[...] = 0
        for tile in x.tolist():
            place, mirrors = self._place(tile, at), self._drawn_mirrors(tile, at)
            picture, found = self._measured(place, mirrors)
            sums += found
            dpicture = self.smoothness * self._variation(picture)[1]
            share = 1 / len(self._likenesses)
            for likeness, mirror in zip(self._likenesses, mirrors, strict=True):
                weight = share * self.style_weights[place[0]]
                dseen = likeness.gradient(share, weight)
                dpicture = dseen[self._mirrors[mirror]] + dpicture
            grads[place] += dpicture * picture * (1 - picture) / grads.dtype.type(divisor)
        if ready is not None:
            ready(0)
        return self.sums(sums[0] / divisor, *sums[1:])

    def measure(self, x: Array, targets: Array) -> Array:
        sums = np.zeros(3)
        for tile in x.tolist():
            sums += self._measured(self._place(tile, None), self._drawn_mirrors(tile, None))[1]
        return self.sums(*sums)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        content, style = (float(sums) / num_samples for sums in counts)
        return {"loss": loss, "content": content, "style": style}

    def _measured(self, place: Place, mirrors: Sequence[int]) -> tuple[Array, Array]:
        """The picture there; its loss, content distance and style distance, `(3,)`.

        mirrors: how each network sees it.
        """
        picture, known = self.canvas.pixels(place), (self._contents, self._styles)
        found = np.zeros(2)
        for likeness, mirror, contents, styles in zip(
            self._likenesses, mirrors, *(each[place[0]] for each in known), strict=True
        ):
            content, turn = contents[mirror], self._mirrors[mirror]
            if self.tile_shape != self.contents.shape[2:]:
                features, _ = likeness.content(_seen(self.contents[place], turn))
                content = Content(features, content.variance)
            found += likeness.distances(_seen(picture, turn), content, styles[mirror])
        found /= len(self._likenesses)
        loss = found[0] + self.style_weights[place[0]] * found[1]
        return picture, np.array([loss + self.smoothness * self._variation(picture)[0], *found])

    def _mirrored(self, look: Callable[[Array], T], picture: Array) -> list[T]:
        """What `look` sees in a picture, in each of the mirrors."""
        return [look(_seen(picture, mirror)) for mirror in self._mirrors]

    def _variation(self, picture: Array) -> tuple[float, Array]:
        return total_variation(picture, self.parameters.arithmetic)

    def _drawn_mirrors(self, tile: int, at: MicroBatch | None) -> list[int]:
        """How each network sees a tile in this step: not mirrored in an evaluation."""
        if at is None or len(self._mirrors) == 1:
            return [0] * len(self._likenesses)
        rng = np.random.Generator(stream(at.seed, Purpose.MIRRORS, at.step, tile))
        return rng.integers(len(self._mirrors), size=len(self._likenesses)).tolist()

    def _place(self, tile: int, at: MicroBatch | None) -> Place:
        """Where a tile lies in this step, or in an evaluation."""
        number, in_picture = divmod(tile, self._grid[0] * self._grid[1])
        down, across = divmod(in_picture, self._grid[1])
        shifts = np.zeros(2, int)
        if at is not None:
            rng = np.random.Generator(stream(at.seed, Purpose.TILES, at.step))
            shifts = rng.integers(self.tile_shape) - np.array(self.tile_shape) // 2
        _, _, h, w = self.contents.shape
        (tile_h, tile_w), (shift_y, shift_x) = self.tile_shape, shifts.tolist()
        y = min(max(0, down * tile_h + shift_y), h - tile_h)
        x = min(max(0, across * tile_w + shift_x), w - tile_w)
        return number, slice(None), slice(y, y + tile_h), slice(x, x + tile_w)


def _seen(picture: Array, mirror: Mirror) -> Array:
    """A picture `(C, H, W)` mirrored, as a new array if it is."""
    return np.ascontiguousarray(picture[mirror])


def style_of(
    network: Network, picture: Array, style_taps: Sequence[str], content_tap: str
) -> Style:
    """The style of a picture `(C, H, W)` of any size, for a `Likeness` at the same taps."""
    picture = as_floats(picture, network.dtype)
    return Likeness(network, picture.shape, style_taps, content_tap).style(picture)


def total_variation(picture: Array, arithmetic: Arithmetic = FLOAT) -> tuple[float, Array]:
    """The mean squared difference of neighbours, down plus across, of `(C, H, W)`; its gradient."""
    total, gradient = 0.0, np.zeros_like(picture)
    for axis in (1, 2):
        difference = np.diff(picture, axis=axis)
        total += square(difference, arithmetic) / difference.size
        difference *= picture.dtype.type(2 / difference.size)
        after, before = np.moveaxis(gradient, axis, 0)[1:], np.moveaxis(gradient, axis, 0)[:-1]
        after += np.moveaxis(difference, axis, 0)
        before -= np.moveaxis(difference, axis, 0)
    return total, gradient


def as_floats(pictures: Array, dtype: DTypeLike = np.float32) -> Array:
    """Bytes as floats from 0 to 1; floats have to be that already. A new array of any shape."""
    found = pixels(pictures, "pictures")
    floats = found.astype(dtype) / np.dtype(dtype).type(255 if found.dtype == np.uint8 else 1)
    if not (floats.min() >= 0 and floats.max() <= 1):
        raise DataError(
            f"pictures: found floats from {floats.min():.4g} to {floats.max():.4g}, expected 0 to 1"
        )
    return floats


def _arithmetic(networks: Sequence[Network]) -> Arithmetic:
    """The one in which all of them compute; raises ValueError if there are two."""
    first, *others = (arithmetic_of_features(network) for network in networks)
    for other in others:
        if repr(other) != repr(first):
            raise ValueError(
                f"StyleTransfer: found {first!r} and {other!r}, expected networks of one arithmetic"
            )
    return first


def _each(weight: float | Sequence[float], number: int) -> list[float]:
    """A weight for each of a number of pictures."""
    weights = [float(each) for each in np.atleast_1d(np.asarray(weight))]
    if len(weights) not in (1, number):
        raise ValueError(
            f"StyleTransfer: style_weight: found {len(weights)} numbers, expected 1 or {number}, "
            "one for each picture"
        )
    return weights if len(weights) == number else weights * number


def _tiling(tile: int | None, h: int, w: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The height and width of a tile, and how many there are down and across."""
    if tile is None:
        return (h, w), (1, 1)
    side = arguments.whole("StyleTransfer", "tile", tile, minimum=2)
    tile_h, tile_w = min(side, h), min(side, w)
    return (tile_h, tile_w), (-(-h // tile_h), -(-w // tile_w))


def square(x: Array, arithmetic: Arithmetic = FLOAT) -> float:
    """|x|², added up in float64."""
    squares = np.square(x, dtype=np.float64)
    return float(arithmetic.sum(squares, None, scratch=squares))
