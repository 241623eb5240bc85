"""TwoLayerNet, ThreeLayerNet, SimpleConvNet and DeepConvNet, under the book's names.

Where a pooling layer follows a ReLU in the book it precedes it here: max pooling and ReLU commute,
exactly and with the same gradient, and ReLU then has a quarter of the elements to do.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Shape
from distnet.base.options import Option, pick
from distnet.models.scaling import Width, scaled
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Sigmoid,
    Tanh,
)

DIGITS: Shape = (1, 28, 28)
ACTIVATIONS: dict[str, type[Layer]] = {"sigmoid": Sigmoid, "relu": ReLU, "tanh": Tanh}
COUNT = {">=": 1, "<=": 65536}

Hidden = Annotated[int, Option("units of the hidden layer", metavar="N", limits=COUNT)]


class TwoLayerNet(Network):
    """Linear, sigmoid, linear (book section 4.5): 39,760 parameters for 784-50-10.

    `activation` is "sigmoid" (chapter 4), "relu" (chapter 5) or "tanh". Weights start with
    std 0.01.
    """

    def __init__(
        self,
        input_shape: Shape = DIGITS,
        num_classes: int = 10,
        *,
        hidden_size: Hidden = 50,
        activation: Annotated[
            str, Option("function of the hidden units", choices=tuple(ACTIVATIONS))
        ] = "sigmoid",
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers = [
            Linear(hidden_size, init=0.01),
            pick(ACTIVATIONS, "activation", activation)(),
            Linear(num_classes, init=0.01),
        ]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


class ThreeLayerNet(Network):
    """Linear, sigmoid, linear, sigmoid, linear (book section 3.6): 45,360 parameters.

    The book calls it by its sizes, 784-50-100-10, and only loads weights for it.
    """

    def __init__(
        self,
        input_shape: Shape = DIGITS,
        num_classes: int = 10,
        *,
        hidden_sizes: Annotated[
            tuple[int, ...], Option("units of the hidden layers", metavar="N", limits=COUNT)
        ] = (50, 100),
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers: list[Layer] = []
        for size in hidden_sizes:
            layers += [Linear(size, init="xavier"), Sigmoid()]
        layers += [Linear(num_classes, init="xavier")]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


class SimpleConvNet(Network):
    """Conv, ReLU, pool, linear, ReLU, linear (book section 7.5): 433,890 parameters on 28 x 28.

    Weights start with std 0.01, as in the book.
    """

    def __init__(
        self,
        input_shape: Shape = DIGITS,
        num_classes: int = 10,
        *,
        filters: Annotated[
            int, Option("filters of the convolution", metavar="N", limits=COUNT)
        ] = 30,
        kernel: Annotated[
            int, Option("rows and columns of a filter", metavar="N", limits=COUNT)
        ] = 5,
        hidden_size: Hidden = 100,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers = [
            Conv2d(filters, kernel, init=0.01),
            MaxPool2d(2),
            ReLU(),
            Linear(hidden_size, init=0.01),
            ReLU(),
            Linear(num_classes, init=0.01),
        ]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)


class DeepConvNet(Network):
    """The deep VGG-like network (book section 8.1.1): 123,552 parameters on 28 x 28.

    Three stages of two 3x3 convolutions (16, 32 and 64 filters) and a pooling layer, then linear 50
    and linear 10, He initialisation. The fourth convolution pads by 2, so that 14 x 14 pixels
    become 16 x 16 and halve evenly. The book's second dropout, on the logits, is left out: it
    costs accuracy and makes the training loss meaningless. `batchnorm` normalises where maps are
    small already, so that it costs little. `width` is how many times as many filters, and hidden
    units, there are. `wide_stem` saves the costliest convolution, the second,
    on maps of 28 x 28: one of 5x5 sees the same neighbourhood of a pixel as two of 3x3.
    """

    def __init__(
        self,
        input_shape: Shape = DIGITS,
        num_classes: int = 10,
        *,
        dropout: Annotated[
            float,
            Option(
                "fraction of the hidden units that a training step drops",
                metavar="X",
                limits={">=": 0, "<": 1},
            ),
        ] = 0.5,
        batchnorm: Annotated[
            bool,
            Option("batch normalisation behind each convolution, of deep_convnet each pooling"),
        ] = False,
        wide_stem: Annotated[
            bool, Option("one 5x5 convolution in place of the first two, of 3x3")
        ] = False,
        width: Width = 1.0,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
    ) -> None:
        layers: list[Layer] = []
        for filters, pad in ((16, 1), (32, 2), (64, 1)):
            filters = scaled(filters, width)
            if wide_stem and not layers:
                layers += [Conv2d(filters, 5, pad=2)]
            else:
                layers += [Conv2d(filters, 3, pad=1), ReLU(), Conv2d(filters, 3, pad=pad)]
            layers += [MaxPool2d(2)]
            layers += [BatchNorm(), ReLU()] if batchnorm else [ReLU()]
        layers += [Linear(scaled(50, width)), ReLU(), Dropout(dropout), Linear(num_classes)]
        super().__init__(layers, input_shape, seed=seed, dtype=dtype)
