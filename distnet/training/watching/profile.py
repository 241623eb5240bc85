"""Where the time of a step goes, layer by layer (book section 8.3.1): `--profile`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from distnet.base.tables import aligned
from distnet.nn import Branches, Conv2d, Layer, Residual, Sequential
from distnet.nn.own_layers import computes_as
from distnet.nn.parameters import Parameters
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult

HEADER = ("layer", "forward ms", "backward ms", "of the step", "GFLOP/s")
BOOK = "the book: 89 % of AlexNet's way forward on a CPU, 95 % on a GPU"
FLOPS_PER_MULTIPLY_ADD = 2
PASSES = 3  # forward, and in backward the gradients of the weights and of the input
SIDE, REPEATS = 768, 5  # of the matrices, and products, that tell what this machine can do


@dataclass
class LayerTime:
    """What a layer, or a convolution with the pooling behind it, took in all steps."""

    name: str
    layer: Layer
    forward: float = 0.0  # seconds
    backward: float = 0.0

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


class Profile(Callback):
    """Times each layer of this rank's steps; `say` shows the table when the run ends.

    What is no layer is the rest of a step: sums of residuals, pixels, loss, sums over ranks,
    optimizer. GFLOP/s count the multiplications of a direct convolution, so that an algorithm that
    needs fewer may exceed what the machine's matrix product reaches.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.times: list[LayerTime] = []
        self.seconds, self.num_samples, self.num_steps = 0.0, 0, 0

    def begin(self, run: Run) -> None:
        if not self.times:
            run.trainer.compute_apart()
            self.times = list(watch_layers(run.trainer.parameters))

    def stepped(self, run: Run, result: StepResult) -> None:
        self.seconds += result.own.seconds
        self.num_steps += result.own.num_steps
        self.num_samples += result.own.num_samples

    def end(self, run: Run) -> None:
        for line in self.lines() if self.num_steps else ():
            self._say(line)

    def lines(self) -> list[str]:
        """The table, a row for each layer, and what convolutions take together."""
        rows = [HEADER, *map(self._row, self.times)]
        rest = self.seconds - sum(each.seconds for each in self.times)
        rows.append(("all else", "", "", f"{rest / self.seconds:.1%}", ""))
        convolutions = [each for each in self.times if isinstance(each.layer, Conv2d)]
        share = sum(each.seconds for each in convolutions) / self.seconds
        step = self.seconds / self.num_steps * 1e3
        return [
            f"a step takes {step:.1f} ms on rank 0, of which its layers take",
            *aligned(rows),
            f"convolutions: {share:.1%} of a step ({BOOK}); a product of matrices reaches "
            f"{product_rate() / 1e9:.0f} GFLOP/s here",
        ]

    def _row(self, each: LayerTime) -> tuple[str, ...]:
        forward, backward = (s / self.num_steps * 1e3 for s in (each.forward, each.backward))
        flops = FLOPS_PER_MULTIPLY_ADD * PASSES * each.layer.multiply_adds * self.num_samples
        rate = f"{flops / each.seconds / 1e9:.0f}" if flops and each.seconds else ""
        share = f"{each.seconds / self.seconds:.1%}"
        return each.name, f"{forward:.2f}", f"{backward:.2f}", share, rate


def watch_layers(parameters: Parameters) -> Iterator[LayerTime]:
    """From now on, the layers of all networks with these parameters note how long they take.

    Those in blocks each for itself. Forward only when they are told of a micro-batch, so that
    evaluation does not count.
    """
    for prefix, body in parameters.parts.items():
        yield from _watch(prefix, body)


def _watch(prefix: str, body: object) -> Iterator[LayerTime]:
    for stage in getattr(body, "stages", ()):
        name, layer = f"{prefix}.{stage.name}".lstrip("."), stage.first
        if computes_as(layer, Sequential):
            yield from _watch(name, layer)
        elif computes_as(layer, Residual) or computes_as(layer, Branches):
            for number, path in enumerate(layer.paths, start=1):
                yield from _watch(f"{name}.path{number}", path)
        else:
            each = LayerTime(name, layer)
            _time(stage.run, each)
            yield each


def _time(layer: Layer, each: LayerTime) -> None:
    forward, backward = layer.forward, layer.backward

    def timed_forward(x: Any, out: Any = None, at: Any = None) -> Any:
        began = time.perf_counter()
        y = forward(x, out, at)
        if at is not None:
            each.forward += time.perf_counter() - began
        return y

    def timed_backward(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        dx = backward(*args, **kwargs)
        each.backward += time.perf_counter() - began
        return dx

    setattr(layer, "forward", timed_forward)  # noqa: B010  a type checker would object
    setattr(layer, "backward", timed_backward)  # noqa: B010


def product_rate() -> float:
    """FLOP/s of a product of two matrices of this machine's BLAS, float32: the best of a few."""
    a, b, out = np.ones((3, SIDE, SIDE), np.float32)
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        np.matmul(a, b, out=out)
        seconds.append(time.perf_counter() - began)
    return FLOPS_PER_MULTIPLY_ADD * SIDE**3 / min(seconds)
