"""The layers of distnet.nn with the input shapes they are tested on, and how a test gets them.

No layer may be missing: test_gradients.py compares the table with the subclasses of `Layer`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

import distnet.nn
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    Training,
    layout,
)
from distnet.nn.activations import Activation
from distnet.nn.parameter import flatten_parameters, flatten_statistics

BASES = {Layer, Activation}  # not layers themselves
TRAIN = Training(seed=3, step=5, micro_batch=2, share=0.25)
MODES = [TRAIN, None]
MODE_NAMES = ["train", "evaluate"]


@dataclass(frozen=True)
class Case:
    """A layer and the shape of one sample, `(C, H, W)` or `(K,)`."""

    name: str
    make: Callable[[], Layer]
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return self.name


def block() -> Sequential:
    """Everything that is smooth, nested, with several layers that work in place."""
    inner = Sequential([BatchNorm(), Tanh(), Dropout(0.25)])
    outer = [Conv2d(3, 3, pad=1), Tanh(), inner, Sigmoid(), Dropout(0.5), Linear(4), Tanh()]
    return Sequential(outer)


CASES = [
    Case("conv 3x3 pad 1", lambda: Conv2d(3, 3, pad=1), (2, 5, 6)),
    Case("conv 3x3 no pad", lambda: Conv2d(2, 3), (3, 6, 4)),
    Case("conv 3x3 pad 2", lambda: Conv2d(2, 3, pad=2), (2, 6, 5)),
    Case("conv 3x3 one channel", lambda: Conv2d(4, 3, pad=1), (1, 8, 7)),
    Case("conv 3x3 one pixel", lambda: Conv2d(3, 3, pad=1), (2, 1, 1)),
    Case("conv 3x3 stride 2", lambda: Conv2d(2, 3, stride=2), (3, 7, 5)),
    Case("conv 3x3 stride 3, unused pixels", lambda: Conv2d(2, 3, stride=3, pad=1), (2, 7, 9)),
    Case("conv 3x3 stride > kernel", lambda: Conv2d(2, 2, stride=3), (2, 8, 6)),
    Case("conv 1x1", lambda: Conv2d(4, 1), (3, 4, 5)),
    Case("conv 1x1 stride 2", lambda: Conv2d(2, 1, stride=2), (3, 4, 5)),
    Case("conv 5x5", lambda: Conv2d(3, 5), (1, 8, 7)),
    Case("conv 5x5 pad 2 stride 2", lambda: Conv2d(2, 5, stride=2, pad=2), (2, 6, 7)),
    Case("conv 2x3", lambda: Conv2d(2, (2, 3), pad=1), (2, 4, 5)),
    Case("conv kernel = image", lambda: Conv2d(3, (4, 5)), (2, 4, 5)),
    Case("conv kernel > image", lambda: Conv2d(2, 5, pad=2), (1, 3, 2)),
    Case("pool 2", lambda: MaxPool2d(2), (3, 4, 6)),
    Case("pool 2, unused pixels", lambda: MaxPool2d(2), (2, 5, 7)),
    Case("pool 3 stride 1 pad 1", lambda: MaxPool2d(3, stride=1, pad=1), (2, 4, 5)),
    Case("pool 3 stride 2", lambda: MaxPool2d(3, stride=2), (2, 7, 5)),
    Case("pool 2 stride 3", lambda: MaxPool2d(2, stride=3), (2, 5, 8)),
    Case("pool 3 stride 2 pad 2", lambda: MaxPool2d(3, stride=2, pad=2), (2, 2, 5)),
    Case("linear of vectors", lambda: Linear(5), (7,)),
    Case("linear of images", lambda: Linear(4), (3, 2, 4)),
    Case("linear of pixels", lambda: Linear(4), (3, 1, 1)),
    Case("linear without bias", lambda: Linear(3, bias=False), (2, 3, 2)),
    Case("flatten", Flatten, (3, 2, 4)),
    Case("relu of images", ReLU, (3, 4, 5)),
    Case("relu of vectors", ReLU, (9,)),
    Case("sigmoid", Sigmoid, (2, 3, 4)),
    Case("tanh", Tanh, (6,)),
    Case("dropout of images", lambda: Dropout(0.3), (3, 4, 5)),
    Case("dropout of vectors", lambda: Dropout(0.5), (11,)),
    Case("batchnorm of images", BatchNorm, (3, 4, 2)),
    Case("batchnorm of vectors", BatchNorm, (5,)),
    Case("sequential", block, (2, 4, 4)),
]


def all_layers() -> set[type[Layer]]:
    """Every subclass of Layer that distnet.nn defines, in whichever of its modules."""
    for module in pkgutil.iter_modules(distnet.nn.__path__, "distnet.nn."):
        importlib.import_module(module.name)
    found = set(_subclasses(Layer)) - BASES
    return {layer for layer in found if layer.__module__.startswith("distnet.nn.")}


def _subclasses(cls: type[Layer]) -> Iterator[type[Layer]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def build(layer: Layer, shape: tuple[int, ...], dtype=np.float64, seed: int = 0) -> Layer:
    """The layer, built, with random parameters and running statistics."""
    rng = np.random.default_rng(seed)
    layer.build(shape, dtype)
    values, _ = flatten_parameters(list(layer.parameters()), dtype)
    flatten_statistics(list(layer.statistics()))
    values[...] = rng.uniform(0.3, 1, values.shape) * rng.choice([-1, 1], values.shape)
    for _, statistic in layer.statistics():  # means, then squares that exceed those of the means
        statistic.value[...] = statistic.start_value + rng.uniform(0, 0.5, statistic.shape)
    layer.refresh()
    return layer


def built(case: Case, dtype=np.float64) -> Layer:
    return build(case.make(), case.shape, dtype)


def images(shape: tuple[int, ...], dtype=np.float64, seed: int = 0) -> np.ndarray:
    """Standard normal numbers, in the engine's memory order."""
    x = layout.empty(shape, dtype)
    x[...] = np.random.default_rng(seed).standard_normal(shape)
    return x


def off_kinks(shape: tuple[int, ...], dtype=np.float64, seed: int = 0) -> np.ndarray:
    """Numbers at least 2e-3 away from zero and 4e-3 from each other, in [-2, 2] if few enough."""
    size = int(np.prod(shape))
    ranks = np.random.default_rng(seed).permutation(size) - size // 2
    x = layout.empty(shape, dtype)
    x[...] = ((ranks + 0.5) * max(4 / size, 4e-3)).reshape(shape)
    return x


def names_of(layer: Layer) -> list[str]:
    """What a gradient check compares: the input and every parameter."""
    return ["x", *(name for name, _ in layer.parameters())]
