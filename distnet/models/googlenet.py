"""GoogLeNet, of inception modules (Szegedy et al. 2014, "Going deeper"; book section 8.2.3)."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.base.options import Option
from distnet.models.scaling import (
    LAST_INIT,
    PICTURES,
    REPEATS,
    DropoutRatio,
    ImageSize,
    Standardization,
    Width,
    is_small,
    prepared,
    scaled,
)
from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
)


class Module(NamedTuple):
    """The channels in the four branches of an inception module (table 1 of the paper)."""

    one: int  # the 1 x 1 convolution
    three_reduced: int  # the 1 x 1 convolution in front of the 3 x 3 one
    three: int
    five_reduced: int  # and in front of the 5 x 5 one
    five: int
    pooled: int  # the 1 x 1 convolution behind the pooling


# Inception 3a and 3b, 4a to 4e, 5a and 5b.
STAGES = (
    (Module(64, 96, 128, 16, 32, 32), Module(128, 128, 192, 32, 96, 64)),
    (
        Module(192, 96, 208, 16, 48, 64),
        Module(160, 112, 224, 24, 64, 64),
        Module(128, 128, 256, 24, 64, 64),
        Module(112, 144, 288, 32, 64, 64),
        Module(256, 160, 320, 32, 128, 128),
    ),
    (Module(256, 160, 320, 32, 128, 128), Module(384, 192, 384, 48, 128, 128)),
)


class GoogLeNet(Network):
    """A stem, three stages of inception modules, the mean of each channel, and one linear layer.

    6,624,904 parameters for 1000 classes of 3 x 224 x 224, as in torchvision: with batch
    normalisation, without the auxiliary classifiers, which only training has, and with 3 x 3
    convolutions where the paper has 5 x 5. `modules` says how many of the published modules each
    stage has; fewer numbers make fewer stages.

    Images of less than 64 pixels a side get a stem that keeps their size, one 3 x 3 convolution of
    192 filters, as is usual for CIFAR-10, instead of three convolutions and two poolings.
    """

    def __init__(
        self,
        input_shape: Shape = PICTURES,
        num_classes: int = 1000,
        *,
        modules: Annotated[
            tuple[int, ...], Option("inception modules in each stage", metavar="N", limits=REPEATS)
        ] = (2, 5, 2),
        width: Width = 1.0,
        dropout: DropoutRatio = 0.2,
        image_size: ImageSize = 0,
        standardize: Standardization = "none",
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        stages = _stages(modules)
        layers, shape = prepared("GoogLeNet", input_shape, image_size, standardize)
        layers += _stem(width, is_small(shape))
        for number, stage in enumerate(stages):
            if number:
                # The last pooling has other windows than the others, in torchvision as well.
                layers += [MaxPool2d(3 if number == 1 else 2, stride=2, ceil_mode=True)]
            layers += [_inception(module, width) for module in stage]
        layers += [GlobalAvgPool2d(), Dropout(dropout), Linear(num_classes, init=LAST_INIT)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


def _stages(modules: tuple[int, ...]) -> list[tuple[Module, ...]]:
    """The first modules of each stage, as many as asked for; raises ValueError for more."""
    most = tuple(map(len, STAGES))
    if len(modules) > len(most) or any(n > m for n, m in zip(modules, most, strict=False)):
        raise ValueError(f"GoogLeNet: found modules {modules}, expected at most {most}")
    return [stage[:number] for stage, number in zip(STAGES, modules, strict=False)]


def _stem(width: float, small: bool) -> list[Layer]:
    first, second = scaled(64, width), scaled(192, width)
    if small:
        return _convolution(second, 3, pad=1)
    return [
        *_convolution(first, 7, stride=2, pad=3),
        MaxPool2d(3, stride=2, ceil_mode=True),
        *_convolution(first, 1),
        *_convolution(second, 3, pad=1),
        MaxPool2d(3, stride=2, ceil_mode=True),
    ]


def _inception(module: Module, width: float) -> Layer:
    """Four ways from the same pixels, side by side (figure 2b of the paper)."""
    one, three_reduced, three, five_reduced, five, pooled = (scaled(c, width) for c in module)
    return Branches(
        _convolution(one, 1),
        _convolution(three_reduced, 1) + _convolution(three, 3, pad=1),
        _convolution(five_reduced, 1) + _convolution(five, 3, pad=1),
        [MaxPool2d(3, stride=1, pad=1), *_convolution(pooled, 1)],
    )


def _convolution(filters: int, kernel: int, stride: int = 1, pad: int = 0) -> list[Layer]:
    convolution = Conv2d(filters, kernel, stride=stride, pad=pad, bias=False)
    return [convolution, BatchNorm(eps=1e-3), ReLU()]
