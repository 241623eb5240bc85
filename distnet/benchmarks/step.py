"""`python -m distnet.bench step`: whole training steps against PyTorch, one thread each.

A step of distnet is the trainer's: pixels from uint8, forward, backward, exact sums in fixed point,
optimizer. A step of PyTorch starts from float pixels that are ready. Both in steady state.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

import numpy as np

from distnet.base.arithmetic import ARITHMETICS, Arithmetic, arithmetic_of
from distnet.base.blas import one_blas_thread
from distnet.base.options import option, parse_options
from distnet.benchmarks.networks import CASES, Case, random_trainer, torch_step
from distnet.benchmarks.rounds import describe_machine, interleave, ratios
from distnet.benchmarks.torch_twin import pools_before_relu
from distnet.nn import Conv2d, Layer, Sequential
from distnet.nn.conv.choice import ALGORITHMS, fastest_algorithm
from distnet.training.step.trainer import Trainer

# Keeps glibc from returning PyTorch's activations to the kernel at every step.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "4294967296"}

# Steps in a row, of which the first is not measured: a run is one step after another. Many of short
# ones, since each contender finds the caches full of what the one before has left.
TURN, TURN_SECONDS = 6, 0.1

COUNT, COUNT_OR_0 = {">=": 1, "<=": 1_000_000}, {">=": 0, "<=": 1_000_000}


@dataclass(frozen=True)
class StepOptions:
    """Times whole training steps against PyTorch, one thread each."""

    models: tuple[str, ...] = option(tuple(CASES)[:3], "networks", group="steps", choices=CASES)
    batch_size: int = option(
        0, "global batch; 0: 100, of photographs 4", group="steps", metavar="N", limits=COUNT_OR_0
    )
    micro_batch_sizes: tuple[int, ...] = option(
        (25, 50, 100),
        "of distnet, in turn; at most the batch",
        group="steps",
        metavar="N",
        limits=COUNT,
    )
    arithmetic: tuple[str, ...] = option(
        ("float32",), "in which distnet computes, in turn", group="steps", choices=ARITHMETICS
    )
    rounds: int = option(10, "turns of each contender", group="steps", metavar="N", limits=COUNT)
    layers: bool = option(False, "also the share of each layer", group="steps")


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code."""
    options = parse_options(StepOptions, argv, "python -m distnet.bench step")
    has_torch = importlib.util.find_spec("torch") is not None
    if has_torch and not MALLOC.keys() <= os.environ.keys():
        # The settings take effect when a process starts; they favour PyTorch.
        command = [sys.executable, "-m", "distnet.bench", "step", *argv]
        os.execve(sys.executable, command, os.environ | MALLOC)
    print(describe_machine())
    with one_blas_thread():
        for model in options.models:
            _compare(model, options, has_torch)
            if options.layers:
                for size, name in product(options.micro_batch_sizes, options.arithmetic):
                    _print_layers(CASES[model], size, arithmetic_of(name))
    return 0


def _compare(model: str, options: StepOptions, has_torch: bool) -> None:
    case = CASES[model]
    batch = options.batch_size or case.batch_size
    contenders: dict[str, Callable[[], object]] = {}
    for size in sorted({min(size, batch) for size in options.micro_batch_sizes}):
        for name in options.arithmetic:
            label = f"distnet micro-batch {size}" + f", {name}" * (len(options.arithmetic) > 1)
            trainer = random_trainer(case, batch, size, arithmetic=arithmetic_of(name))
            contenders[label] = steps(trainer)
    ours = list(contenders)
    rivals: dict[str, list[str]] = {}  # with what to compare: a ratio for each
    orders = (False, True) if pools_before_relu(_body(trainer)) else (False,)
    for pools_first in orders if has_torch else ():
        compared = "the faster PyTorch" + ", pooling first" * pools_first
        for layout in ("NCHW", "channels_last"):
            label = f"PyTorch {layout}" + ", pooling first" * pools_first
            rivals.setdefault(compared, []).append(label)
            contenders[label] = torch_step(
                case, batch, layout == "channels_last", pools_first=pools_first
            )
    turn = max(TURN, round(TURN_SECONDS / _seconds(contenders[ours[0]])))
    times = interleave(contenders, options.rounds, turn=turn)
    if not rivals and len(options.arithmetic) > 1:  # then the first of ours is what to compare with
        rivals = {ours[0]: [ours[0]]}
    compared = "; to ".join(rivals) or "PyTorch"
    print(f"\n{model}, batch {batch}, {options.rounds} rounds; ratio to {compared}")
    columns = f"{'ratio':>8}{'(min)':>8}" * max(1, len(rivals))
    print(f"{'':<36}{'images/s':>10}{'us/image':>10}{'min':>8}{columns}")
    for name, seconds in times.items():
        row = f"{name:<36}{batch / median(seconds):>10.0f}{median(seconds) / batch * 1e6:>10.1f}"
        row += f"{min(seconds) / batch * 1e6:>8.1f}"
        for labels in rivals.values() if name in ours else ():
            by_median, by_minimum = ratios(times, name, labels)
            row += f"{by_median:>8.2f}{by_minimum:>8.2f}"
        print(row)


def steps(trainer: Trainer) -> Callable[[], object]:
    """A function that makes the next step."""
    numbers = iter(range(10**9))
    return lambda: trainer.step(next(numbers))


def _seconds(run: Callable[[], object]) -> float:
    """Seconds of a second call: the first makes the arrays."""
    run()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _print_layers(
    case: Case, micro_batch_size: int, arithmetic: Arithmetic, num_rounds: int = 30
) -> None:
    """The share of each layer in a step of one micro-batch, and what products alone would take."""
    parts = random_trainer(case, micro_batch_size, micro_batch_size, arithmetic=arithmetic)
    seconds: dict[str, list[float]] = {}
    for stage in _body(parts).stages:
        layer = stage.run
        for method in ("forward", "backward"):
            key = f"{stage.name} {method}"
            setattr(layer, method, _timed(getattr(layer, method), seconds.setdefault(key, [])))
    step, whole = steps(parts), []
    for _ in range(num_rounds):
        started = time.perf_counter()
        step()
        whole.append(time.perf_counter() - started)
    total = median(whole)
    header = f"\nmicro-batch {micro_batch_size}, {arithmetic.name}: "
    print(f"{header}{total / micro_batch_size * 1e6:.1f} us/image, of it")
    for name in (stage.name for stage in _body(parts).stages):
        both = [median(seconds[f"{name} {method}"]) for method in ("forward", "backward")]
        cells = "".join(f"{s / micro_batch_size * 1e6:>9.1f}" for s in both)
        print(f"  {name:<12}{cells}  {sum(both) / total:>6.1%}")
    rest = total - sum(median(each) for each in seconds.values())
    print(
        f"  feed, loss, sums, optimizer{rest / micro_batch_size * 1e6:>3.1f}  {rest / total:>6.1%}"
    )
    rate = _product_rate()
    floor = 3 * _convolution_flops(_body(parts)) / rate
    print(f"  convolution products alone, at {rate / 1e9:.0f} GFLOP/s: {floor * 1e6:.1f} us/image")


def _body(trainer: Trainer) -> Sequential:
    """The layers of the one network that is trained."""
    body = trainer.parameters.parts[""]
    assert isinstance(body, Sequential)
    return body


def _timed(method: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = method(*args, **kwargs)
        seconds.append(time.perf_counter() - started)
        return result

    return timed


def _convolution_flops(body: Layer) -> float:
    """Floating-point operations of one image's forward products, by the algorithms chosen."""
    layers = [layer for layer in body.leaves() if isinstance(layer, Conv2d)]
    chosen = [(layer.geometry, ALGORITHMS[fastest_algorithm(layer.geometry)]) for layer in layers]
    return sum(2 * g.num_pairs * algorithm.multiplications(g) for g, algorithm in chosen)


def _product_rate(num_rounds: int = 50) -> float:
    """FLOP/s of 36 products (200 x 32) @ (32 x 32), the shape of the deep network's middle."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((36, 200, 32), (36, 32, 32)))
    out = np.empty((36, 200, 32), np.float32)
    times = interleave({"product": lambda: np.matmul(a, b, out=out)}, num_rounds)
    return 2 * out.size * 32 / median(times["product"])
