"""The layers of distnet.nn with the input shapes they are tested on, and how a test gets them.

No layer may be missing: test_gradients.py compares the table with the subclasses of `Layer`.
"""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

import distnet.nn
from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.nn import (
    LSTM,
    AvgPool2d,
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Branches,
    CaptionDecoder,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Embedding,
    Flatten,
    GlobalAvgPool2d,
    GramMatrix,
    Layer,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    MaxUnpool2d,
    MicroBatch,
    PositionEmbedding,
    Quantize,
    ReLU,
    Residual,
    Resize,
    Scale,
    Sequential,
    Sigmoid,
    Sign,
    Standardize,
    Tanh,
    Unflatten,
    Upsample,
    layout,
)
from distnet.nn.branches import _Paths
from distnet.nn.conv.choice import ALGORITHMS
from distnet.nn.conv.conv2d import _Convolution, _PooledConvolution
from distnet.nn.conv.pooling import Pooling
from distnet.nn.conv.upsample import Resampling
from distnet.nn.layers.activations import Activation
from distnet.nn.layers.binary import _BinaryWeight
from distnet.nn.parameters import Parameters
from distnet.nn.quantization import _Watch
from distnet.nn.stacks import NotedChain

BASES = {
    Layer,
    Activation,
    NotedChain,
    Pooling,
    _BinaryWeight,
    _Convolution,
    _Paths,
    _PooledConvolution,
    _Watch,
    Resampling,
}  # not layers themselves
STRAIGHT_THROUGH = {
    BinaryConv2d,
    BinaryLinear,
    Quantize,
    Sign,
}  # their gradient is by agreement not that of what they compute
TRAIN = MicroBatch(seed=3, step=5, number=2, share=0.25)
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


def residual() -> Residual:
    """A block whose input is read twice, inside and outside of other containers."""
    inner = Residual([Sigmoid()])
    body = [Conv2d(3, 3, pad=1), Tanh(), inner, Conv2d(4, 3, pad=1), BatchNorm()]
    return Residual(body, shortcut=[Conv2d(4, 1)])


def inception() -> Branches:
    """All kinds of layers side by side: an inception module in small."""
    return Branches(
        [Conv2d(2, 1), Tanh()],
        [Conv2d(2, 1), Tanh(), Conv2d(5, 3, pad=1)],
        [Conv2d(1, 5, pad=2), Sigmoid(), Dropout(0.25)],
        [MaxPool2d(3, stride=1, pad=1), Conv2d(2, 1)],
        [],
    )


def autoencoder() -> Sequential:
    """Two poolings, undone in reverse order, the outer one with windows that overlap."""
    inner = [MaxPool2d(2), Conv2d(2, 3, pad=1), MaxUnpool2d()]
    return Sequential([MaxPool2d(3, stride=2, pad=1), Tanh(), *inner, Tanh(), MaxUnpool2d()])


def words(**options) -> list[Layer]:
    """Numbers become one of seven words, half of them word 0, and the words vectors."""
    return [Quantize(0.297, high=6), Embedding(7, 3, **options)]


def padded_lstm(**options) -> Sequential:
    return Sequential([*words(padding=0), LSTM(2, masked=True, **options)])


def wide_pool() -> MaxPool2d:
    return MaxPool2d((2, 3), stride=(1, 2), pad=(0, 1))


def average_of_pixels() -> AvgPool2d:
    return AvgPool2d((2, 3), stride=(1, 2), pad=1, count_include_pad=False)


def average_rounded_up() -> AvgPool2d:
    return AvgPool2d((3, 2), stride=(2, 3), pad=(1, 0), ceil_mode=True)


def unequal_transposed() -> ConvTranspose2d:
    return ConvTranspose2d(3, (2, 3), stride=(1, 2), pad=(0, 1), output_padding=(0, 1))


def fits(
    algorithm: str, kernel, stride=1, pad=0, dilation=1, groups=1, channels=1, filters=1
) -> bool:
    """Whether an algorithm is made for a geometry; numbers stand for equal pairs."""
    if algorithm == "depthwise":
        return 1 < groups == channels == filters
    if algorithm in ("im2col", "blocked"):
        return True
    if groups > 1 or dilation not in (1, (1, 1)):
        return False
    if algorithm in ("few_channels", "winograd_parts"):
        return True
    squares = {"winograd4": (3, (3, 3)), "winograd2": (3, (3, 3), 5, (5, 5))}[algorithm]
    return kernel in squares and stride in (1, (1, 1)) and len({*np.atleast_1d(pad)}) == 1


def convolutions() -> Iterator[Case]:
    """Every algorithm on every geometry that it is made for."""
    geometries = [  # kernel, stride, pad, shape
        (3, 1, 1, (2, 5, 6)),
        (3, 1, 0, (3, 6, 4)),
        (3, 1, 2, (2, 6, 5)),
        (3, 1, 1, (1, 8, 7)),
        (3, 1, 1, (5, 4, 4)),
        (3, 1, 1, (2, 1, 1)),
        (3, 1, 3, (2, 2, 3)),
        (3, 1, 5, (2, 3, 2)),  # most tiles see nothing but padding
        (3, 2, 0, (3, 7, 5)),
        (3, 3, 1, (2, 7, 9)),  # leaves pixels out at the end
        (2, 3, 0, (2, 8, 6)),  # leaves pixels out in between
        (1, 1, 0, (3, 4, 5)),
        (1, 2, 0, (3, 4, 5)),
        (5, 1, 0, (1, 8, 7)),
        (5, 1, 0, (5, 6, 7)),
        (5, 1, 2, (2, 5, 6)),
        (5, 1, 4, (2, 3, 3)),
        (5, 2, 2, (2, 6, 7)),
        (7, 1, 3, (2, 7, 6)),
        (4, 2, 1, (2, 6, 5)),
        ((2, 3), 1, 1, (2, 4, 5)),
        ((4, 5), 1, 0, (2, 4, 5)),  # kernel = image
        (5, 1, 2, (1, 3, 2)),  # kernel > image
    ]
    for algorithm, (kernel, stride, pad, shape) in itertools.product(ALGORITHMS, geometries):
        if fits(algorithm, kernel, stride, pad):
            make = partial(Conv2d, 3, kernel, stride=stride, pad=pad, algorithm=algorithm)
            yield Case(f"{algorithm} of {shape}, k{kernel} s{stride} p{pad}", make, shape)
    others = [  # filters, kernel, shape, further options
        (4, 3, (2, 5, 6), {"pad": 1, "groups": 2}),
        (3, (1, 2), (3, 4, 5), {"groups": 3}),  # each filter sees one channel
        (8, 3, (4, 5, 4), {"pad": 1, "groups": 4, "stride": 2}),
        (6, 1, (4, 3, 4), {"groups": 2}),
        (3, 3, (2, 6, 7), {"pad": 2, "dilation": 2}),
        (2, (2, 3), (2, 7, 6), {"dilation": (3, 2), "stride": (2, 1), "pad": (1, 0)}),
        (2, 3, (2, 6, 5), {"pad": (0, 2)}),
        (2, 3, (1, 7, 9), {"stride": (2, 3), "pad": (1, 2)}),
        (4, 3, (4, 7, 7), {"pad": (2, 1), "dilation": (2, 1), "groups": 2}),
        (3, (2, 3), (3, 7, 7), {"pad": (2, 1), "dilation": (1, 2), "stride": (2, 1), "groups": 3}),
    ]
    for algorithm, (filters, kernel, shape, options) in itertools.product(ALGORITHMS, others):
        if fits(algorithm, kernel, **options, channels=shape[0], filters=filters):
            make = partial(Conv2d, filters, kernel, algorithm=algorithm, **options)
            yield Case(f"{algorithm} of {shape}, {filters} k{kernel} {options}", make, shape)
    for algorithm in ALGORITHMS:
        groups = 2 if algorithm == "depthwise" else 1
        make = partial(Conv2d, 2, 3, pad=1, bias=False, algorithm=algorithm, groups=groups)
        yield Case(f"{algorithm} without bias", make, (2, 5, 6))


CASES = [
    *convolutions(),
    Case("pool 2", lambda: MaxPool2d(2), (3, 4, 6)),
    Case("pool 2, unused pixels", lambda: MaxPool2d(2), (2, 5, 7)),
    Case("pool 3 stride 1 pad 1", lambda: MaxPool2d(3, stride=1, pad=1), (2, 4, 5)),
    Case("pool 3 stride 2", lambda: MaxPool2d(3, stride=2), (2, 7, 5)),
    Case("pool 2 stride 3", lambda: MaxPool2d(2, stride=3), (2, 5, 8)),
    Case("pool 3 stride 2 pad 2", lambda: MaxPool2d(3, stride=2, pad=2), (2, 2, 5)),
    Case("pool (2, 3) stride (1, 2) pad (0, 1)", wide_pool, (2, 4, 5)),
    Case("pool 3 stride 2, rounded up", lambda: MaxPool2d(3, stride=2, ceil_mode=True), (2, 6, 4)),
    Case("pool 3, one window sticks out", lambda: MaxPool2d(3, ceil_mode=True), (2, 2, 7)),
    Case("unpool", lambda: Sequential([MaxPool2d(2), Tanh(), MaxUnpool2d()]), (2, 4, 6)),
    Case("unpool, two in one another", autoencoder, (2, 7, 6)),
    Case("average pool 2", lambda: AvgPool2d(2), (3, 4, 5)),
    Case("average pool 3 stride 1 pad 1", lambda: AvgPool2d(3, stride=1, pad=1), (2, 4, 5)),
    Case("average pool of the image's pixels", average_of_pixels, (2, 4, 6)),
    Case("average pool (3, 2), rounded up", average_rounded_up, (2, 6, 4)),
    Case("global average pool", GlobalAvgPool2d, (3, 4, 5)),
    Case("gram matrix", GramMatrix, (3, 4, 5)),
    Case("gram matrix of one channel", GramMatrix, (1, 2, 3)),
    Case("lrn of images", LocalResponseNorm, (7, 2, 3)),
    Case("lrn of an even window", lambda: LocalResponseNorm(4, alpha=2, beta=0.6, k=2), (6, 3, 2)),
    Case("lrn of vectors", lambda: LocalResponseNorm(3, alpha=0.5), (6,)),
    Case("lrn of fewer channels than neighbours", lambda: LocalResponseNorm(9, alpha=3), (2, 2, 3)),
    Case("standardize", lambda: Standardize((0.5, -0.2), (0.25, 2)), (2, 3, 4)),
    Case("transposed 3", lambda: ConvTranspose2d(3, 3), (2, 4, 5)),
    Case("transposed 4 stride 2 pad 1", lambda: ConvTranspose2d(3, 4, stride=2, pad=1), (2, 3, 4)),
    Case("transposed, gaps", lambda: ConvTranspose2d(2, 2, stride=3, bias=False), (3, 3, 2)),
    Case("transposed, unequal sides", unequal_transposed, (2, 3, 4)),
    Case("resize, larger and smaller", lambda: Resize((5, 3)), (2, 3, 4)),
    Case("resize to one number", lambda: Resize(4), (1, 4, 9)),
    Case("upsample 2", lambda: Upsample(2), (3, 2, 4)),
    Case("upsample bilinear", lambda: Upsample((2, 3), mode="bilinear"), (2, 4, 3)),
    Case(
        "upsample, corners stay",
        lambda: Upsample(2, mode="bilinear", align_corners=True),
        (2, 1, 3),
    ),
    Case("linear of vectors", lambda: Linear(5), (7,)),
    Case("linear of images", lambda: Linear(4), (3, 2, 4)),
    Case("linear of pixels", lambda: Linear(4), (3, 1, 1)),
    Case("linear without bias", lambda: Linear(3, bias=False), (2, 3, 2)),
    Case("flatten", Flatten, (3, 2, 4)),
    Case("unflatten", lambda: Unflatten((3, 2, 4)), (24,)),
    Case("relu of images", ReLU, (3, 4, 5)),
    Case("relu of vectors", ReLU, (9,)),
    Case("leaky relu of images", LeakyReLU, (3, 4, 5)),
    Case("leaky relu of vectors", lambda: LeakyReLU(-0.25), (9,)),
    Case("sigmoid", Sigmoid, (2, 3, 4)),
    Case("tanh", Tanh, (6,)),
    Case("quantize", lambda: Quantize(0.0937, high=15), (2, 3, 4)),
    Case("quantize numbers of both signs", lambda: Quantize(0.0137, low=-127, high=127), (7,)),
    Case("sign", Sign, (3, 2, 4)),
    Case("binary conv", lambda: BinaryConv2d(3, 3, pad=1), (2, 5, 6)),
    Case("binary conv without bias", lambda: BinaryConv2d(4, 5, bias=False), (1, 8, 8)),
    Case("binary linear", lambda: BinaryLinear(4), (3, 2, 4)),
    Case("scale of images", Scale, (3, 4, 2)),
    Case("scale of vectors", Scale, (5,)),
    Case("dropout of images", lambda: Dropout(0.3), (3, 4, 5)),
    Case("dropout of vectors", lambda: Dropout(0.5), (11,)),
    Case("batchnorm of images", BatchNorm, (3, 4, 2)),
    Case("batchnorm of vectors", BatchNorm, (5,)),
    Case("embedding of words", lambda: Sequential(words()), (5,)),
    Case("embedding of words in a grid", lambda: Sequential(words(padding=2)), (2, 3)),
    Case("positions of images", PositionEmbedding, (3, 2, 4)),
    Case("positions of a sequence", PositionEmbedding, (4, 3)),
    Case("captions", lambda: CaptionDecoder(5, 4, hidden=3, embedding=2), (3, 2, 3)),
    Case("lstm", lambda: LSTM(3), (4, 2)),
    Case("lstm, the last state", lambda: LSTM(2, last=True), (3, 4)),
    Case("lstm of padded words", padded_lstm, (6,)),
    Case("lstm of padded words, the last state", lambda: padded_lstm(last=True), (4,)),
    Case("sequential", block, (2, 4, 4)),
    Case("residual", residual, (2, 4, 4)),
    Case("residual of vectors", lambda: Residual([Linear(5), Tanh()]), (5,)),
    Case("branches", inception, (2, 4, 5)),
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


def build(
    layer: Layer,
    shape: tuple[int, ...],
    dtype=np.float64,
    seed: int = 0,
    arithmetic: Arithmetic = FLOAT,
) -> Layer:
    """The layer, built, with random parameters and running statistics."""
    rng = np.random.default_rng(seed)
    layer.compute_in(arithmetic)
    layer.build(shape, arithmetic.dtype(dtype))
    values = Parameters({"": layer}, dtype, arithmetic).values
    values[...] = rng.uniform(0.3, 1, values.shape) * rng.choice([-1, 1], values.shape)
    for _, statistic in layer.statistics():  # means, and variances, which stay positive
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
