"""`python -m distnet.bench conv`: one convolution of any shape, every algorithm, beside PyTorch.

Forward and backward with all gradients, one thread; the GFLOP/s are those of a direct convolution,
so an algorithm that multiplies less may exceed the machine's.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from distnet.base.blas import one_blas_thread
from distnet.base.options import ConfigError, option, parse_options
from distnet.benchmarks.rounds import describe_machine, interleave, ratios
from distnet.nn import layout
from distnet.nn.conv.choice import ALGORITHMS, fastest_algorithm
from distnet.nn.conv.geometry import Geometry
from distnet.nn.memory import Memory

SHAPE, TIMING = "shape", "measurement"
COUNT = {">=": 1, "<=": 65536}


@dataclass(frozen=True)
class ConvOptions:
    """Times one convolution of any shape, forward and backward, by every algorithm."""

    batch: int = option(25, "images", group=SHAPE, metavar="N", limits=COUNT)
    channels: int = option(32, "channels in", group=SHAPE, metavar="N", limits=COUNT)
    size: int = option(16, "rows and columns of the input", group=SHAPE, metavar="N", limits=COUNT)
    filters: int = option(32, "channels out", group=SHAPE, metavar="N", limits=COUNT)
    kernel: int = option(3, "rows and columns of a filter", group=SHAPE, metavar="N", limits=COUNT)
    stride: int = option(1, "step of the filter", group=SHAPE, metavar="N", limits=COUNT)
    pad: int = option(
        1, "zeros around the input", group=SHAPE, metavar="N", limits={">=": 0, "<=": 65536}
    )
    dilation: int = option(
        1, "distance of a filter's elements", group=SHAPE, metavar="N", limits=COUNT
    )
    groups: int = option(1, "groups of channels", group=SHAPE, metavar="N", limits=COUNT)
    rounds: int = option(20, "timed calls of each", group=TIMING, metavar="N", limits=COUNT)


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code."""
    options = parse_options(ConvOptions, argv, "python -m distnet.bench conv")
    size, kernel = options.size, options.kernel
    try:
        geometry = Geometry(
            options.channels,
            size,
            size,
            options.filters,
            (kernel, kernel),
            (options.stride, options.stride),
            (options.pad, options.pad),
            (options.dilation, options.dilation),
            options.groups,
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    print(describe_machine())
    with one_blas_thread():
        _compare(geometry, options.batch, options.rounds)
    return 0


def _compare(g: Geometry, n: int, num_rounds: int) -> None:
    contenders = {name: _distnet(name, g, n) for name, each in ALGORITHMS.items() if each.suits(g)}
    rivals = []
    if importlib.util.find_spec("torch") is not None:
        rivals = ["PyTorch NCHW", "PyTorch channels_last"]
        contenders |= {name: _torch(g, n, name.endswith("last")) for name in rivals}
    times = interleave(contenders, num_rounds)
    flops = 3 * 2 * g.num_pairs * g.kh * g.kw * g.oh * g.ow
    print(f"{g}, {n} images; * is what Conv2d takes")
    print(f"{'':<24}{'us/image':>10}{'min':>9}{'GFLOP/s':>9}{'ratio':>8}")
    for name, seconds in times.items():
        star = "*" if name == fastest_algorithm(g) else " "
        each = median(seconds) / n
        row = f"{star} {name:<22}{each * 1e6:>10.1f}{min(seconds) / n * 1e6:>9.1f}"
        row += f"{flops / each / 1e9:>9.0f}"
        if rivals and name not in rivals:
            row += f"{ratios(times, name, rivals)[0]:>8.2f}"
        print(row)


def _distnet(name: str, g: Geometry, n: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    algorithm = ALGORITHMS[name](g, n, np.float32, Memory())
    weight = rng.standard_normal(g.weight_shape).astype(np.float32)
    bias, dweight, dbias = np.zeros(g.f, np.float32), np.empty_like(weight), np.empty(g.f, "f4")
    y, dy = (layout.empty(algorithm.output_shape, np.float32) for _ in range(2))
    x = algorithm.inbox
    if x is None:
        x = layout.empty((n, g.c, g.h, g.w), np.float32)
    x[...] = rng.standard_normal(x.shape)
    dy[...] = rng.standard_normal(dy.shape)

    def run() -> None:
        algorithm.load(weight, bias)
        algorithm.forward(x, y, keep=True)
        algorithm.backward(dy, dweight, dbias, need_dx=True)

    return run


def _torch(g: Geometry, n: int, channels_last: bool) -> Callable[[], object]:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    layer = torch.nn.Conv2d(
        g.c, g.f, g.kernel, g.stride, g.pad, dilation=g.dilation, groups=g.groups
    )
    x = torch.randn(n, g.c, g.h, g.w)
    dy = torch.randn(n, *g.output_shape)
    if channels_last:
        layer, x, dy = (each.to(memory_format=torch.channels_last) for each in (layer, x, dy))
    x.requires_grad_()

    def run() -> None:
        layer.zero_grad()
        x.grad = None
        layer(x).backward(dy)

    return run
