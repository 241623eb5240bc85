"""Networks that say what every pixel is: FCN and SegNet (book sections 8.4.2 and 8.5.3).

Both read images `(N, C, H, W)` of any size that 8 divides, halve them three times, and come back to
`(N, K, H, W)`, a score for each class at each pixel. There is no fully connected layer, so there
are as many parameters for large images as for small ones. `objectives.Segmentation` trains them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.nn import (
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Layer,
    MaxPool2d,
    MaxUnpool2d,
    Network,
    ReLU,
    Residual,
    arguments,
)

HALVINGS = 3


class FCN(Network):
    """A fully convolutional network (Long et al. 2014, arXiv:1411.4038), 153,601 parameters.

    Four stages of two 3 x 3 convolutions with `filters` each, a pooling between two of them. The
    class scores of the last, at an eighth of the size, are enlarged by transposed convolutions that
    start as bilinear interpolation, three times by 2. With `skips` = 1 the scores of the third
    stage are added on the way, at a quarter of the size, with 2 also those of the second, at half,
    with 3 those of the first: there the network still knows where things are (the paper's fig. 3).

    The number of parameters is that for 11 classes of grey images.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        skips: int = 2,
        filters: tuple[int, int, int, int] = (16, 32, 64, 64),
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _check_size("FCN", input_shape)
        skips = arguments.whole("FCN", "skips", skips, minimum=0, maximum=HALVINGS)
        first, *below = filters
        layers = [*convolutions(first, first), *_scores(below, num_classes, skips)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


def _scores(below: list[int], num_classes: int, skips: int) -> list[Layer]:
    """From the features of a stage to class scores of the same size, through the stages below."""
    own: list[Layer] = [Conv2d(num_classes, 1)]
    if not below:
        return own
    first, *others = below
    twice = ConvTranspose2d(num_classes, 4, stride=2, pad=1, bias=False, init="bilinear")
    scores = _scores(others, num_classes, skips)
    layers = [MaxPool2d(2), *convolutions(first, first), *scores, twice]
    return [Residual(layers, shortcut=own)] if skips >= len(below) else layers


class SegNet(Network):
    """An encoder and its mirror image, a decoder that unpools (Badrinarayanan et al. 2015).

    arXiv:1511.00561; 145,208 parameters for 8 classes of colour images. Three stages of two 3 x 3
    convolutions with `filters` each and a pooling; then three times a `MaxUnpool2d`, which puts
    every value back to where the maximum was, and two convolutions that fill the gaps. The
    decoder gets nothing from the encoder but these places.
    """

    def __init__(
        self,
        input_shape: Shape,
        num_classes: int,
        *,
        filters: tuple[int, int, int] = (16, 32, 64),
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        _check_size("SegNet", input_shape)
        layers: list[Layer] = []
        for f in filters:
            layers += [*convolutions(f, f), MaxPool2d(2)]
        for i in reversed(range(len(filters))):
            narrower = filters[max(0, i - 1) : i]  # none for the first stage
            layers += [MaxUnpool2d(), *convolutions(filters[i], *narrower)]
        layers += [Conv2d(num_classes, 3, pad=1)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


def convolutions(*filters: int) -> list[Layer]:
    """3 x 3 convolutions that keep the size, each with batch normalisation and ReLU behind it."""
    stage: list[Layer] = []
    for f in filters:
        stage += [Conv2d(f, 3, pad=1, bias=False), BatchNorm(), ReLU()]
    return stage


def _check_size(owner: str, shape: Iterable[int]) -> None:
    _, h, w = arguments.image_shape(owner, tuple(shape))
    step = 2**HALVINGS
    if h % step or w % step:
        expected = f"height and width that {step} divides; pad the images"
        raise arguments.refusal(owner, "input_shape", tuple(shape), expected)
