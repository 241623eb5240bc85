"""ResNet, residual networks (He et al. 2015, "Deep residual learning"; book section 8.2.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.base.options import Option
from distnet.models.scaling import (
    LAST_INIT,
    PICTURES,
    REPEATS,
    ImageSize,
    Standardization,
    Width,
    is_small,
    prepared,
    scaled,
)
from distnet.nn import (
    BatchNorm,
    Conv2d,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
)

EXPANSION = 4  # how many times the channels of its 3 x 3 convolution a bottleneck block puts out


class ResNet(Network):
    """A stem, stages of residual blocks, the mean of each channel, and one linear layer.

    The first stage has 64 channels; each further one has twice as many and half the rows and
    columns. `blocks` of (2, 2, 2, 2) and (3, 4, 6, 3) are ResNet-18 and 34, with two 3 x 3
    convolutions a block; with `bottleneck` blocks of 1 x 1, 3 x 3 and 1 x 1, (3, 4, 6, 3),
    (3, 4, 23, 3) and (3, 8, 36, 3) are ResNet-50, 101 and 152: 11,689,512 to 60,192,808 parameters
    for 1000 classes of 3 x 224 x 224. As in torchvision the 3 x 3 convolution of a bottleneck is
    the one with the stride, and a shortcut is a 1 x 1 convolution where the shape changes.

    Images of less than 64 pixels a side get the stem of the paper's networks for CIFAR-10 (section
    4.2), which keeps their size: 3 x 3 with stride 1 instead of 7 x 7 with stride 2 and a pooling.
    Those networks, of 6 n + 2 layers, are `blocks` of (n, n, n) with a width of 1/4: resnet20,
    resnet56 and resnet110. (Where the paper's shortcuts pad with zeros, these are 1 x 1
    convolutions as well.)

    Without `shortcuts` it is the paper's plain network of the same layers. Without `batchnorm`
    convolutions have biases, and the last one of each residual starts at zero: blocks start as the
    identity, and the signal keeps its size at any depth (Goyal et al. 2017, section 5.1, where the
    last gamma is zero).
    """

    def __init__(
        self,
        input_shape: Shape = PICTURES,
        num_classes: int = 1000,
        *,
        blocks: Annotated[
            tuple[int, ...], Option("residual blocks in each stage", metavar="N", limits=REPEATS)
        ] = (2, 2, 2, 2),
        bottleneck: Annotated[bool, Option("blocks of 1 x 1, 3 x 3 and 1 x 1 pixels")] = False,
        width: Width = 1.0,
        batchnorm: Annotated[bool, Option("batch normalisation behind each convolution")] = True,
        shortcuts: Annotated[bool, Option("the input of each block is added to its output")] = True,
        image_size: ImageSize = 0,
        standardize: Standardization = "none",
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        plan = Plan(width, bottleneck, batchnorm, shortcuts)
        layers, shape = prepared("ResNet", input_shape, image_size, standardize)
        layers += [*plan.stem(is_small(shape)), *plan.blocks(blocks)]
        layers += [GlobalAvgPool2d(), Linear(num_classes, init=LAST_INIT)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


class Plan(NamedTuple):
    """What the layers of one network have in common."""

    width: float
    bottleneck: bool
    batchnorm: bool
    shortcuts: bool

    def stem(self, small: bool) -> list[Layer]:
        channels = scaled(64, self.width)
        if small:
            return [*self.convolution(channels, 3, pad=1), ReLU()]
        stem = self.convolution(channels, 7, stride=2, pad=3)
        return [*stem, ReLU(), MaxPool2d(3, stride=2, pad=1)]

    def blocks(self, numbers: tuple[int, ...]) -> Iterator[Layer]:
        """The layers of all stages, of so many blocks each."""
        found = scaled(64, self.width)  # channels that the next block is given
        for stage, number in enumerate(numbers):
            channels = scaled(64 * 2**stage, self.width)
            for i in range(number):
                stride = 2 if stage and not i else 1
                yield from self.block(found, channels, stride)
                found = channels * (EXPANSION if self.bottleneck else 1)

    def block(self, found: int, channels: int, stride: int) -> list[Layer]:
        """One block on images of `found` channels, and the ReLU behind the sum."""
        residual = self.residual(channels, stride)
        if not self.shortcuts:
            return [*residual, ReLU()]
        put_out = channels * (EXPANSION if self.bottleneck else 1)
        shortcut: list[Layer] = []
        if stride != 1 or found != put_out:
            shortcut = self.convolution(put_out, 1, stride=stride)
        return [Residual(residual, shortcut), ReLU()]

    def residual(self, channels: int, stride: int) -> list[Layer]:
        last = 0.0 if self.shortcuts and not self.batchnorm else "he"
        if not self.bottleneck:
            return [
                *self.convolution(channels, 3, stride=stride, pad=1),
                ReLU(),
                *self.convolution(channels, 3, pad=1, init=last),
            ]
        return [
            *self.convolution(channels, 1),
            ReLU(),
            *self.convolution(channels, 3, stride=stride, pad=1),
            ReLU(),
            *self.convolution(channels * EXPANSION, 1, init=last),
        ]

    def convolution(
        self, filters: int, kernel: int, stride: int = 1, pad: int = 0, init: str | float = "he"
    ) -> list[Layer]:
        bias = not self.batchnorm
        convolution = Conv2d(filters, kernel, stride=stride, pad=pad, bias=bias, init=init)
        return [convolution, BatchNorm()] if self.batchnorm else [convolution]
