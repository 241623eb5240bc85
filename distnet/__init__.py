"""Trains neural networks in NumPy, data-parallel over MPI: the same bits on any number of ranks.

    import distnet

    network = distnet.Network([distnet.Linear(50), distnet.ReLU(), distnet.Linear(10)], (1, 28, 28))
    history = distnet.fit(network, images, labels, epochs=2, optimizer="adam", lr=0.002)
    distnet.save(network, "digits.safetensors")

What is here is all that a user needs, and is loaded when it is first used.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any

# pip runs this file for the version. Otherwise it downloads all that distnet needs, in every
# version, before it tells somebody with Python 3.10 what is wrong.
if sys.version_info < (3, 11):  # noqa: UP036  the reader is that Python
    sys.exit(f"distnet needs Python 3.11 or later, found {sys.version.split()[0]}")
if sys.platform == "win32":
    sys.exit("distnet needs Linux or macOS, found Windows; run it in WSL there")

__version__ = "0.1.0"


def _is_a_command() -> bool:
    """Whether this process is `python -m distnet...`, or `distnet`."""
    if sys.argv[:1] == ["-m"]:  # while Python looks for the module
        words = [word.removeprefix("-m").partition(".")[0] for word in sys.orig_argv]
        return "distnet" in words
    return sys.argv[:1] != [] and sys.argv[0].rpartition("/")[2] == "distnet"


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if kind is KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
    else:
        sys.__excepthook__(kind, error, trace)


# A command imports for a good part of a second, in which Ctrl-C is no bug to be traced. And modules
# are no garbage: looking for some among them would take a tenth of that time, until
# `base.command.begin_command`.
if _is_a_command():
    gc.disable()
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show

# Where each public name comes from.
_HOMES = {
    "distnet.base.keys": ["MicroBatch"],
    "distnet.classifier": ["Classifier"],
    "distnet.data": [
        *("DATASETS", "Dataset", "Samples", "augmentation", "dataset_from_arrays"),
        *("split", "with_test"),
    ],
    "distnet.games": ["CartPole", "Catch", "Game"],
    "distnet.models": [
        *("FCN", "MODELS", "NIC", "RCNN", "VGG", "AlexNet", "DeepConvNet", "FasterRCNN"),
        *("GoogLeNet", "LeNet5", "ResNet", "SegNet", "SimpleConvNet", "ThreeLayerNet"),
        "TwoLayerNet",
    ],
    "distnet.nn": [
        *("LSTM", "AvgPool2d", "BatchNorm", "BinaryConv2d", "BinaryLinear", "Branches"),
        *("Conv2d", "ConvTranspose2d", "Dropout", "Embedding", "Ensemble", "Flatten"),
        *("GlobalAvgPool2d", "GramMatrix", "Layer", "LeakyReLU", "Linear", "LocalResponseNorm"),
        *("MaxPool2d", "MaxUnpool2d", "Network", "PositionEmbedding", "Quantize", "ReLU"),
        *("Residual", "Resize", "Scale", "Sequential", "Sigmoid", "Sign", "Standardize", "Tanh"),
        *("Unflatten", "Upsample", "fold_batchnorm", "joined", "quantize", "softmax"),
    ],
    "distnet.objectives": [
        "OBJECTIVES",
        "Adversarial",
        "Captioning",
        "Classification",
        "Detection",
        "DoubleDQN",
        "Objective",
        "RegionDetection",
        "Regression",
        "Segmentation",
        "StyleTransfer",
        "balanced_weights",
    ],
    "distnet.optim": ["OPTIMIZERS", "SCHEDULES", "make_optimizer", "make_schedule"],
    "distnet.parallel": ["Communicator", "SerialCommunicator", "shared_map"],
    "distnet.program": ["connect", "fit", "learn_to_play", "load_dataset", "run"],
    "distnet.training.callbacks": ["EarlyStopping"],
    "distnet.training.watching.history": ["History"],
    "distnet.training.lr_finder": ["LearningRates", "find_lr"],
    "distnet.training.files.model_file": ["load", "save"],
    "distnet.training.playing": ["play"],
    "distnet.training.run": ["Callback", "Run"],
    "distnet.training.step.diagnosis": ["TrainingDiverged"],
    "distnet.training.step.result": ["StepResult"],
    "distnet.training.step.assembly": ["make_trainer"],
    "distnet.training.step.trainer": ["Trainer"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'distnet' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if TYPE_CHECKING:
    from distnet.base.keys import MicroBatch as MicroBatch
    from distnet.classifier import Classifier as Classifier
    from distnet.data import DATASETS as DATASETS
    from distnet.data import Dataset as Dataset
    from distnet.data import Samples as Samples
    from distnet.data import augmentation as augmentation
    from distnet.data import dataset_from_arrays as dataset_from_arrays
    from distnet.data import split as split
    from distnet.data import with_test as with_test
    from distnet.games import CartPole as CartPole
    from distnet.games import Catch as Catch
    from distnet.games import Game as Game
    from distnet.models import FCN as FCN
    from distnet.models import MODELS as MODELS
    from distnet.models import NIC as NIC
    from distnet.models import RCNN as RCNN
    from distnet.models import VGG as VGG
    from distnet.models import AlexNet as AlexNet
    from distnet.models import DeepConvNet as DeepConvNet
    from distnet.models import FasterRCNN as FasterRCNN
    from distnet.models import GoogLeNet as GoogLeNet
    from distnet.models import LeNet5 as LeNet5
    from distnet.models import ResNet as ResNet
    from distnet.models import SegNet as SegNet
    from distnet.models import SimpleConvNet as SimpleConvNet
    from distnet.models import ThreeLayerNet as ThreeLayerNet
    from distnet.models import TwoLayerNet as TwoLayerNet
    from distnet.nn import LSTM as LSTM
    from distnet.nn import AvgPool2d as AvgPool2d
    from distnet.nn import BatchNorm as BatchNorm
    from distnet.nn import BinaryConv2d as BinaryConv2d
    from distnet.nn import BinaryLinear as BinaryLinear
    from distnet.nn import Branches as Branches
    from distnet.nn import Conv2d as Conv2d
    from distnet.nn import ConvTranspose2d as ConvTranspose2d
    from distnet.nn import Dropout as Dropout
    from distnet.nn import Embedding as Embedding
    from distnet.nn import Ensemble as Ensemble
    from distnet.nn import Flatten as Flatten
    from distnet.nn import GlobalAvgPool2d as GlobalAvgPool2d
    from distnet.nn import GramMatrix as GramMatrix
    from distnet.nn import Layer as Layer
    from distnet.nn import LeakyReLU as LeakyReLU
    from distnet.nn import Linear as Linear
    from distnet.nn import LocalResponseNorm as LocalResponseNorm
    from distnet.nn import MaxPool2d as MaxPool2d
    from distnet.nn import MaxUnpool2d as MaxUnpool2d
    from distnet.nn import Network as Network
    from distnet.nn import PositionEmbedding as PositionEmbedding
    from distnet.nn import Quantize as Quantize
    from distnet.nn import ReLU as ReLU
    from distnet.nn import Residual as Residual
    from distnet.nn import Resize as Resize
    from distnet.nn import Scale as Scale
    from distnet.nn import Sequential as Sequential
    from distnet.nn import Sigmoid as Sigmoid
    from distnet.nn import Sign as Sign
    from distnet.nn import Standardize as Standardize
    from distnet.nn import Tanh as Tanh
    from distnet.nn import Unflatten as Unflatten
    from distnet.nn import Upsample as Upsample
    from distnet.nn import fold_batchnorm as fold_batchnorm
    from distnet.nn import joined as joined
    from distnet.nn import quantize as quantize
    from distnet.nn import softmax as softmax
    from distnet.objectives import OBJECTIVES as OBJECTIVES
    from distnet.objectives import Adversarial as Adversarial
    from distnet.objectives import Captioning as Captioning
    from distnet.objectives import Classification as Classification
    from distnet.objectives import Detection as Detection
    from distnet.objectives import DoubleDQN as DoubleDQN
    from distnet.objectives import Objective as Objective
    from distnet.objectives import RegionDetection as RegionDetection
    from distnet.objectives import Regression as Regression
    from distnet.objectives import Segmentation as Segmentation
    from distnet.objectives import StyleTransfer as StyleTransfer
    from distnet.objectives import balanced_weights as balanced_weights
    from distnet.optim import OPTIMIZERS as OPTIMIZERS
    from distnet.optim import SCHEDULES as SCHEDULES
    from distnet.optim import make_optimizer as make_optimizer
    from distnet.optim import make_schedule as make_schedule
    from distnet.parallel import Communicator as Communicator
    from distnet.parallel import SerialCommunicator as SerialCommunicator
    from distnet.parallel import shared_map as shared_map
    from distnet.program import connect as connect
    from distnet.program import load_dataset as load_dataset
    from distnet.program import run as run
    from distnet.training.callbacks import EarlyStopping as EarlyStopping
    from distnet.training.files.model_file import load as load
    from distnet.training.files.model_file import save as save
    from distnet.training.fit import fit as fit
    from distnet.training.lr_finder import LearningRates as LearningRates
    from distnet.training.lr_finder import find_lr as find_lr
    from distnet.training.playing import learn_to_play as learn_to_play
    from distnet.training.playing import play as play
    from distnet.training.run import Callback as Callback
    from distnet.training.run import Run as Run
    from distnet.training.step.assembly import make_trainer as make_trainer
    from distnet.training.step.diagnosis import TrainingDiverged as TrainingDiverged
    from distnet.training.step.result import StepResult as StepResult
    from distnet.training.step.trainer import Trainer as Trainer
    from distnet.training.watching.history import History as History
