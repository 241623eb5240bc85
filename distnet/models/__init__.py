"""The networks of the book and those that it describes, and MODELS, all classifiers by name.

A classifier is added by its file and a line here; see `Maker`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from distnet.models.alexnet import AlexNet
from distnet.models.book import DeepConvNet, SimpleConvNet, ThreeLayerNet, TwoLayerNet
from distnet.models.faster_rcnn import FasterRCNN
from distnet.models.googlenet import GoogLeNet
from distnet.models.lenet import LeNet5
from distnet.models.nic import NIC
from distnet.models.rcnn import RCNN
from distnet.models.resnet import ResNet
from distnet.models.segmentation import FCN, SegNet
from distnet.models.vgg import VGG
from distnet.nn import Network

__all__ = [
    "FCN",
    "MODELS",
    "NIC",
    "RCNN",
    "VGG",
    "AlexNet",
    "DeepConvNet",
    "FasterRCNN",
    "GoogLeNet",
    "LeNet5",
    "Maker",
    "ResNet",
    "SegNet",
    "SimpleConvNet",
    "ThreeLayerNet",
    "TwoLayerNet",
]

# maker(input_shape, num_classes, *, seed, dtype) -> Network; further keyword-only parameters that
# are annotated as `Annotated[type, Option(...)]` are options of the training command.
Maker = Callable[..., Network]

# Convolutions in VGG's stages, and residual blocks in those of ResNet, by the number of layers.
_VGG = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_CIFAR = {6 * n + 2: (n, n, n) for n in (3, 9, 18)}

MODELS: dict[str, Maker] = {
    # The book drops half; with shifted images less is better.
    "deep_convnet": partial(DeepConvNet, dropout=0.3),
    "simple_convnet": SimpleConvNet,
    "two_layer": TwoLayerNet,
    "three_layer": ThreeLayerNet,
    "lenet5": LeNet5,
    "alexnet": AlexNet,
    **{f"vgg{n}": partial(VGG, convolutions=c) for n, c in _VGG.items()},
    **{f"vgg{n}_bn": partial(VGG, convolutions=c, batchnorm=True) for n, c in _VGG.items()},
    "googlenet": GoogLeNet,
    **{f"resnet{n}": partial(ResNet, blocks=b) for n, b in _RESNET.items()},
    **{f"resnet{n}": partial(ResNet, blocks=b, bottleneck=True) for n, b in _BOTTLENECKS.items()},
    **{f"resnet{n}": partial(ResNet, blocks=b, width=0.25) for n, b in _CIFAR.items()},
}
