"""Pictures in the style of others: what is trained is their pixels (book section 8.5.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import NoReturn, TypeVar

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, common_arithmetic, portable
from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.data.dataset import Samples
from distnet.nn import arguments
from distnet.nn.features import arithmetic_of_features
from distnet.nn.network import Network
from distnet.nn.parameters import Parameters
from distnet.objectives.canvas import Canvas, Grid, Place
from distnet.objectives.likeness import Content, Likeness, as_floats, square
from distnet.objectives.objective import Objective, Ready

Mirror = tuple[slice, slice, slice]  # what makes a mirrored picture `(C, H, W)`, and undoes it
AS_IT_IS, BACKWARDS = slice(None), slice(None, None, -1)
MIRRORS: tuple[Mirror, ...] = tuple(
    (slice(None), down, across)
    for down in (AS_IT_IS, BACKWARDS)
    for across in (AS_IT_IS, BACKWARDS)
)

AT_LEAST_0 = "a finite number >= 0", lambda x: x >= 0

T = TypeVar("T")


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
    number, or P of them. It is compared as a whole or, with `tile`, in squares of that side, see
    `tiles`: then the style has to be found in each of them, and so has the content, whose variance
    is that of the whole picture.

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
        arithmetic = common_arithmetic(
            "StyleTransfer", [arithmetic_of_features(each) for each in networks]
        )
        self.contents = as_floats(contents, networks[0].dtype)
        num_pictures, *shape = self.contents.shape
        if len(shape) != 3 or len(styles) != num_pictures:
            raise ValueError(
                f"StyleTransfer: found contents {self.contents.shape} and {len(styles)} styles, "
                "expected (P, C, H, W) and P of them"
            )
        self.style_weights = _each(style_weight, num_pictures)
        self.smoothness = arguments.real("StyleTransfer", "smoothness", smoothness, *AT_LEAST_0)
        self.canvas = Canvas(self.contents, arithmetic)
        self.parameters = Parameters({"": self.canvas}, networks[0].parameters.dtype, arithmetic)
        side = None if tile is None else arguments.whole("StyleTransfer", "tile", tile, minimum=2)
        self.grid = Grid(self.contents.shape, side)
        taps = style_taps, content_tap
        tile_shape = shape[0], *self.grid.tile_shape
        self._likenesses = [Likeness(each, tile_shape, *taps) for each in networks]
        wholes = [Likeness(each, tuple(shape), *taps) for each in networks]
        self._mirrors = MIRRORS if mirrored else MIRRORS[:1]
        self._contents = [
            [self._mirrored(whole.content, each) for whole in wholes] for each in self.contents
        ]
        if not all(each.variance for of_one in self._contents for each in chain(*of_one)):
            raise DataError(
                "contents: found a picture that looks the same everywhere at content_tap, expected "
                "something on it, by which distances are divided"
            )
        self._styles = []
        for style in (as_floats(each, networks[0].dtype) for each in styles):
            likenesses = [Likeness(each, style.shape, *taps) for each in networks]
            self._styles.append([self._mirrored(each.style, style) for each in likenesses])

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "StyleTransfer: found a copy or a pickle of it, whose pixels would be no parameters any"
            " more, expected a second one, made of the same pictures"
        )

    @property
    def pictures(self) -> Array:
        """What the pictures look like now, `(P, C, H, W)` from 0 to 1, in a new array."""
        return self.canvas.pixels()

    @property
    def tiles(self) -> Samples:
        """What `fit` is given: the numbers of all tiles, as inputs and once more as targets.

        Without `tile` a picture is one. Steps on all of them in micro-batches of one tile,
        `batch_size=len(tiles.inputs), micro_batch_size=1`, let the ranks share them out. Where they
        lie says `Grid`.
        """
        numbers = np.arange(self.grid.num_tiles)
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
            place, mirrors = self.grid.place(tile, at), self._drawn_mirrors(tile, at)
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
            sums += self._measured(self.grid.place(tile, None), self._drawn_mirrors(tile, None))[1]
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
            if self.grid.tile_shape != self.contents.shape[2:]:
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


def _seen(picture: Array, mirror: Mirror) -> Array:
    """A picture `(C, H, W)` mirrored, as a new array if it is."""
    return np.ascontiguousarray(picture[mirror])


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


def _each(weight: float | Sequence[float], number: int) -> list[float]:
    """A weight for each of a number of pictures."""
    given = np.atleast_1d(np.asarray(weight)).tolist()
    weights = [arguments.real("StyleTransfer", "style_weight", each, *AT_LEAST_0) for each in given]
    if len(weights) not in (1, number):
        raise ValueError(
            f"StyleTransfer: style_weight: found {len(weights)} numbers, expected 1 or {number}, "
            "one for each picture"
        )
    return weights if len(weights) == number else weights * number
