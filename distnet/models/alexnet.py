"""AlexNet (Krizhevsky et al. 2012; book section 7.7.2)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.base.options import Option
from distnet.models.scaling import (
    LAST_INIT,
    PICTURES,
    DropoutRatio,
    HiddenSizes,
    ImageSize,
    Standardization,
    Width,
    is_small,
    prepared,
    scaled,
)
from distnet.nn import (
    Conv2d,
    Dropout,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Network,
    ReLU,
)


class AlexNet(Network):
    """Five convolutions, three poolings of overlapping windows, linear 4096, 4096 and the classes.

    61,100,840 parameters for 1000 classes of 3 x 224 x 224: the widths are those for one device
    (Krizhevsky 2014, "One weird trick"), which torchvision has as well. Two of its convolutions
    were normalised locally at first; `lrn` brings that back (2012, section 3.3).

    Images of less than 64 pixels a side get a stem that keeps their size, as Krizhevsky's networks
    for CIFAR-10 had (cuda-convnet, 2012): 5 x 5 with stride 1 instead of 11 x 11 with stride 4, and
    windows of poolings may stick out at the end.
    """

    def __init__(
        self,
        input_shape: Shape = PICTURES,
        num_classes: int = 1000,
        *,
        width: Width = 1.0,
        hidden_sizes: HiddenSizes = (4096, 4096),
        dropout: DropoutRatio = 0.5,
        lrn: Annotated[
            bool, Option("local response normalisation behind the first two convolutions")
        ] = False,
        image_size: ImageSize = 0,
        standardize: Standardization = "none",
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers, shape = prepared("AlexNet", input_shape, image_size, standardize)
        small = is_small(shape)

        def pooled(convolution: Conv2d) -> list[Layer]:
            pool = MaxPool2d(3, stride=2, ceil_mode=small)
            if lrn:
                return [convolution, ReLU(), LocalResponseNorm(5, alpha=5e-4, k=2.0), pool]
            return [convolution, pool, ReLU()]  # as ReLU and pool, with fewer numbers to do

        first, second, third, *others = (scaled(f, width) for f in (64, 192, 384, 256, 256))
        stem = Conv2d(first, 5, pad=2) if small else Conv2d(first, 11, stride=4, pad=2)
        layers += pooled(stem) + pooled(Conv2d(second, 5, pad=2))
        for filters in (third, *others):
            layers += [Conv2d(filters, 3, pad=1), ReLU()]
        layers += [MaxPool2d(3, stride=2, ceil_mode=small)]
        for size in hidden_sizes:
            layers += [Dropout(dropout), Linear(size), ReLU()]
        layers += [Linear(num_classes, init=LAST_INIT)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)
