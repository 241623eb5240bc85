"""VGG, the networks of Oxford's Visual Geometry Group (Simonyan & Zisserman 2014; book 8.2.2)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.base.options import Option
from distnet.models.scaling import (
    LAST_INIT,
    PICTURES,
    REPEATS,
    DropoutRatio,
    HiddenSizes,
    ImageSize,
    Standardization,
    Width,
    prepared,
    scaled,
)
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
)

CHANNELS = (64, 128, 256, 512, 512)  # of the convolutions in each stage


class VGG(Network):
    """Stages of 3 x 3 convolutions, each ending in a pooling that halves; then linear layers.

    Configurations A, B, D and E of table 1 are `convolutions` of (1, 1, 2, 2, 2), (2, 2, 2, 2, 2),
    (2, 2, 3, 3, 3) and (2, 2, 4, 4, 4): VGG-11, 13, 16 and 19, with 132,863,336 to 143,667,240
    parameters for 1000 classes of 3 x 224 x 224. Fewer numbers make fewer stages. `batchnorm` is
    torchvision's vgg11_bn to vgg19_bn.

    k stages need images of at least 2 ** k pixels a side: 32 for the published ones.
    """

    def __init__(
        self,
        input_shape: Shape = PICTURES,
        num_classes: int = 1000,
        *,
        convolutions: Annotated[
            tuple[int, ...], Option("convolutions in each stage", metavar="N", limits=REPEATS)
        ] = (1, 1, 2, 2, 2),
        batchnorm: Annotated[bool, Option("batch normalisation behind each convolution")] = False,
        width: Width = 1.0,
        hidden_sizes: HiddenSizes = (4096, 4096),
        dropout: DropoutRatio = 0.5,
        image_size: ImageSize = 0,
        standardize: Standardization = "none",
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers, shape = prepared("VGG", input_shape, image_size, standardize)
        _check_size(shape, len(convolutions))
        for number, channels in zip(convolutions, CHANNELS, strict=False):
            for i in range(number):
                layers += [Conv2d(scaled(channels, width), 3, pad=1)]
                layers += [BatchNorm()] if batchnorm else []
                layers += [MaxPool2d(2)] if i == number - 1 else []  # commutes with ReLU
                layers += [ReLU()]
        for size in hidden_sizes:
            layers += [Linear(size), ReLU(), Dropout(dropout)]
        layers += [Linear(num_classes, init=LAST_INIT)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


def _check_size(shape: Shape, num_stages: int) -> None:
    """Raises ValueError unless every stage finds pixels to halve."""
    _, h, w = shape
    if num_stages > len(CHANNELS):
        raise ValueError(f"VGG: found {num_stages} stages, expected at most {len(CHANNELS)}")
    if min(h, w) < 2**num_stages:
        raise ValueError(
            f"VGG: found images of {h} x {w} pixels, expected at least {2**num_stages} a side for "
            f"{num_stages} stages; scale them with --image-size {2**num_stages}"
        )
