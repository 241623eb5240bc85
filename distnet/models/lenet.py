"""LeNet-5 (LeCun et al. 1998; book section 7.7.1)."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.base.options import Option, pick
from distnet.models.book import ACTIVATIONS
from distnet.models.scaling import HiddenSizes, ImageSize, Width, prepared, scaled
from distnet.nn import AvgPool2d, Conv2d, Linear, Network

# How the weights in front of an activation start.
INIT = {"tanh": "xavier", "sigmoid": "xavier_sigmoid", "relu": "he"}


class LeNet5(Network):
    """Two convolutions and average poolings, then linear layers of 120, 84 and the classes.

    61,706 parameters for ten classes of grey images of 28 x 28 or 32 x 32. As the network is built
    today: the second convolution sees all channels, averages have no weights of their own, and the
    end is linear. LeCun's images have 32 pixels a side; smaller ones are padded by 2 zeros.
    """

    def __init__(
        self,
        input_shape: Shape = (1, 28, 28),
        num_classes: int = 10,
        *,
        width: Width = 1.0,
        hidden_sizes: HiddenSizes = (120, 84),
        activation: Annotated[
            str, Option("function of the hidden units", choices=tuple(ACTIVATIONS))
        ] = "tanh",
        image_size: ImageSize = 0,
        seed: int | None = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers, shape = prepared("LeNet5", input_shape, image_size, "none")
        function, init = pick(ACTIVATIONS, "activation", activation), INIT[activation]
        for filters, pad in ((6, 2 if min(shape[1:]) < 32 else 0), (16, 0)):
            convolution = Conv2d(scaled(filters, width), 5, pad=pad, init=init)
            layers += [convolution, function(), AvgPool2d(2)]
        for size in hidden_sizes:
            layers += [Linear(size, init=init), function()]
        layers += [Linear(num_classes, init="xavier")]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)
