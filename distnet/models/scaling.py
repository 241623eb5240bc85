"""What the published networks share: how they are made narrower, and what suits small images."""

from __future__ import annotations

from typing import Annotated

from distnet.base.arrays import Shape
from distnet.base.options import Option, pick
from distnet.nn import Layer, Resize, Standardize, arguments

PICTURES: Shape = (3, 224, 224)  # what ImageNet's networks read
SMALL = 64  # pixels; smaller images would be gone behind a stem that is made for 224
LAST_INIT = 0.01  # std of the last weights, so the loss starts low (Krizhevsky 2012, section 5)

COUNT = {">=": 1, "<=": 65536}
REPEATS = {">=": 1, "<=": 1000}

Width = Annotated[
    float,
    Option(
        "channels of the convolutions, as a multiple of the published numbers",
        metavar="X",
        limits={">": 0, "<=": 16},
    ),
]
HiddenSizes = Annotated[
    tuple[int, ...], Option("units of the hidden layers", metavar="N", limits=COUNT)
]
DropoutRatio = Annotated[
    float,
    Option(
        "fraction of the hidden units that a training step drops",
        metavar="X",
        limits={">=": 0, "<": 1},
    ),
]

# Mean and standard deviation of red, green and blue, for pixels between 0 and 1.
COLOURS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
ImageSize = Annotated[
    int,
    Option(
        "rows and columns that images are scaled to, inside of the network; 0: as they are",
        metavar="N",
        limits={">=": 0, "<=": 4096},
    ),
]
Standardization = Annotated[
    str,
    Option(
        "what standardizes the colours inside of the network: the mean and deviation of ImageNet, "
        "as published weights expect, or 0.5 and 0.5",
        choices=("none", *COLOURS),
    ),
]


def scaled(channels: int, width: float) -> int:
    """`channels` of the published network in one of that width: rounded, at least 1."""
    width = arguments.real("network", "width", width, "a number > 0", lambda x: x > 0)
    return max(1, round(channels * width))


def is_small(shape: Shape) -> bool:
    """Whether images `(C, H, W)` are so small that the stem has to keep their size."""
    return min(shape[1:]) < SMALL


def prepared(
    owner: str, input_shape: Shape, image_size: int, standardize: str
) -> tuple[list[Layer], Shape]:
    """The layers in front of a network that change its pixels, and the shape behind them."""
    channels, h, w = arguments.image_shape(owner, input_shape)
    layers: list[Layer] = [Resize(image_size)] if image_size else []
    colours = pick({"none": (), **COLOURS}, "standardization", standardize)
    layers += [Standardize(*colours)] if colours else []
    return layers, (channels, image_size or h, image_size or w)
