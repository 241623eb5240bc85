"""`python -m distnet.bench device`: whether a GPU has the CPU's bits, how fast it is, and where.

It is made to end within four minutes: first what must hold, each a line with `ok` or `wrong`, then
tables of what was measured. The exit code is 0 if all held, else 1. With `--device numpy` the same
code runs on the processor, which tries this file and says nothing of a device.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, Portable
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.base.options import ConfigError, option, parse_options
from distnet.base.tables import aligned
from distnet.benchmarks.golden import CASES, GOLDEN, train
from distnet.data import load_dataset
from distnet.device import Device, DeviceError, compute_on, device_named
from distnet.device.body import OnDevice
from distnet.device.convolution import DeviceConv2d
from distnet.models import DeepConvNet
from distnet.nn import Network
from distnet.objectives import Classification, Objective
from distnet.optim import make_schedule
from distnet.parallel import SerialCommunicator
from distnet.training.known_answer import check_device, fingerprint_of
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer
from distnet.training.step.updates import optimizer_for

# Of the rules of optimizers two: the tests marked `gpu` have all.
GOLDEN_CASES = [name for name in CASES if not name.startswith("mlp_")]
GOLDEN_CASES += ["mlp_momentum", "mlp_adamw"]
NEAR = 1e-4  # how far float32 gradients may be from the CPU's, relative to the largest
SIZES = ((25, 1), (25, 4), (100, 1), (25, 40), (1000, 1))  # samples of a micro-batch, how many
QUICK_SIZES = ((5, 1), (5, 2))
WHAT = "measurement"
REPEATS = 20
SECONDS = 1.0  # for one figure; what is left of four minutes is for starting, and the checks


@dataclass(frozen=True)
class DeviceOptions:
    """Checks that a device computes what the CPU does, and measures it."""

    device: str = option(
        "cuda",
        "the device; numpy tries this benchmark without one",
        group=WHAT,
        choices=("cuda", "numpy"),
    )
    json: str = option(
        "", "write the figures to this file, too", group=WHAT, metavar="FILE", path=True
    )
    quick: bool = option(False, "a check and a figure of each kind, for tests", group=WHAT)


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code."""
    options = parse_options(DeviceOptions, argv, "python -m distnet.bench device")
    try:
        device = device_named(options.device)
    except DeviceError as error:
        raise ConfigError(str(error)) from None
    began = time.perf_counter()
    described = fingerprint_of(device)
    print(", ".join(f"{name} {described[name]}" for name in described if name != "cpu_features"))
    wrong = 0
    for name, check in checks(device, options.quick):
        began_check = time.perf_counter()
        text = check()
        wrong += bool(text)
        seconds = time.perf_counter() - began_check
        line = f"{'wrong' if text else 'ok':<6}{name}  ({seconds:.1f} s) {text}"
        print(line.rstrip(), flush=True)
    figures: dict[str, Any] = {"machine": described, "wrong": wrong}
    figures["steps"] = _show_steps(device, QUICK_SIZES if options.quick else SIZES, options.quick)
    figures["layers"] = _show_layers(device, *((5, 2) if options.quick else (25, 4)))
    print(f"{time.perf_counter() - began:.0f} s in all, {wrong} wrong")
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if wrong else 0


def checks(device: Device, quick: bool = False) -> Iterator[tuple[str, Callable[[], str]]]:
    """What must hold on a device, by name: functions that return "", or what is wrong."""
    yield "known answer of a tiny network", lambda: _raised(lambda: check_device(device))
    for name in GOLDEN_CASES[-1:] if quick else GOLDEN_CASES:
        yield f"golden hash of {name}", lambda name=name: _golden(device, name)  # type: ignore[misc]
    yield "groups are micro-batches", lambda: _groups(device, 2 if quick else 25)
    yield "float32 near the CPU's", lambda: _near(device, 2 if quick else 25)


def _raised(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""


def _golden(device: Device, name: str) -> str:
    found = train(CASES[name], SerialCommunicator(), device=device)
    return "" if found == GOLDEN[name] else f"found {found:.16}, expected {GOLDEN[name]:.16}"


def _groups(device: Device, n: int) -> str:
    """Three micro-batches in one pass, and each of them by itself on the host."""
    objective, host = (Classification(_network(Portable(), each)) for each in (device, None))
    body, parameters = _body(objective), host.parameters
    images, dlogits = _images(3, n), _dlogits(3, n)
    ats = [MicroBatch(number=number) for number in range(3)]
    together = body.forward_group(images, ats)
    body.backward_group(dlogits)
    for g, at in enumerate(ats):
        body.take_gradients(g)
        alone = host.network.forward(images[g], at)
        host.network.backward(dlogits[g])
        if not np.array_equal(together[g], alone):
            return f"the logits of micro-batch {g} are others"
        if not np.array_equal(objective.parameters.grads, parameters.grads):
            return f"the gradients of micro-batch {g} are others"
    return ""


def _near(device: Device, n: int) -> str:
    # Of noise: before training, black pixels give zeros, and rounding decides which side of a ReLU.
    noise = np.random.default_rng(1).uniform(size=(n, 1, 28, 28))
    images, dlogits = noise.astype(np.float32), _dlogits(1, n)[0].astype(np.float32)
    grads = []
    for network in (_network(FLOAT, device), _network(FLOAT, None)):
        network.forward(images, MicroBatch())
        network.backward(dlogits)
        grads.append(network.parameters.grads.astype(np.float64))
    error = float(np.abs(grads[0] - grads[1]).max() / np.abs(grads[1]).max())
    return "" if error < NEAR else f"found a relative error of {error:.1e}, expected {NEAR:.0e}"


def _show_steps(device: Device, sizes: tuple[tuple[int, int], ...], quick: bool) -> list[Any]:
    """DeepConvNet: images a second, of the pass on the device, and of whole training steps."""
    lasting = 0 if quick else SECONDS
    rows: list[Any] = []
    for arithmetic in (FLOAT, Portable()):
        for n, groups in sizes:
            if groups == 1 or arithmetic.rounds:  # in float32 a pass has one micro-batch
                trainer = _trainer(device, arithmetic, n, groups)
                calls = _pass_of(trainer), _steps_of(trainer)
                rates = [n * groups / _timed(call, lasting) for call in calls]
                rows.append((arithmetic.name, n * groups, n, *rates))
    print("\nDeepConvNet: images/s")
    head = ["", "batch", "micro-batch", "on the device", "training, Adam"]
    lines = [[name, *(f"{number:,.0f}" for number in numbers)] for name, *numbers in rows]
    print("\n".join(aligned([head, *lines])))
    return rows


def _trainer(device: Device, arithmetic: Arithmetic, n: int, groups: int) -> Trainer:
    """A trainer of DeepConvNet on digits, by Adam."""
    objective = Classification(_network(arithmetic, device))
    inputs, labels = load_dataset("mnist").train
    return make_trainer(
        objective,
        Feed(objective, inputs, labels),
        optimizer=optimizer_for(objective.parameters, "adam"),
        schedule=make_schedule("linear", 0.001, 1_000_000, arithmetic=arithmetic),
        batch_size=n * groups,
        micro_batch_size=n,
        seed=0,
        comm=SerialCommunicator(),
    )


def _steps_of(trainer: Trainer) -> Callable[[], object]:
    numbers = count()
    return lambda: trainer.step(next(numbers))


def _pass_of(trainer: Trainer) -> Callable[[], object]:
    """What of a step is the device's: the numbers of images go there, sums come back."""
    group_pass = trainer.group_pass
    assert group_pass is not None
    samples = trainer.sampler.micro_batches(0)
    ats = [MicroBatch(number=number) for number in range(len(samples))]

    num_samples = float(sum(map(len, samples)))
    return lambda: group_pass(samples, ats, num_samples)


def _show_layers(device: Device, n: int, groups: int) -> list[Any]:
    """Where the time of a pass goes: microseconds of each layer, forward and backward, recorded.

    And of these those of unrolling, once for each way (section 8.3.1: im2col).
    """
    body = _body(Classification(_network(Portable(), device)))
    images = _images(groups, n)
    body.bring(n, [MicroBatch(number=g) for g in range(groups)])
    body.chain.load()
    stages = list(zip((name for name, _ in body.named_layers()), body.chain.inner, strict=True))
    rows: dict[str, list[float]] = {}
    x = device.to_device(np.moveaxis(images, 2, -1))
    for name, stage in stages:
        rows[name] = [_recorded_seconds(device, lambda s=stage, x=x: s.forward(x, True))]  # type: ignore[misc]
        x = stage.forward(x, True)
    dy = device.to_device(_dlogits(groups, n))
    for name, stage in reversed(stages):
        rows[name].append(_recorded_seconds(device, lambda s=stage, dy=dy: s.backward(dy, True)))  # type: ignore[misc]
        dy = stage.backward(dy, True)
        rows[name].append(0.0)
        if isinstance(stage, DeviceConv2d):
            unroll = partial(device.kernels.unroll, stage.x, stage.windows)
            rows[name][2] = 2 * _recorded_seconds(device, unroll)
    lines = [[name, *(f"{1e6 * each:,.0f}" for each in seconds)] for name, seconds in rows.items()]
    print(f"\nlayers of DeepConvNet, portable, {groups} micro-batches of {n}: microseconds")
    print("\n".join(aligned([["", "forward", "backward", "of it unrolling"], *lines])))
    return [[name, *seconds] for name, seconds in rows.items()]


def _recorded_seconds(device: Device, call: Callable[[], Any]) -> float:
    """Seconds of one run among many, one after another, without Python between its parts."""
    call()
    again = device.record(call)
    repeats = 1 if device.name == "numpy" else REPEATS
    times = []
    for _ in range(3):
        device.wait()
        began = time.perf_counter()
        for _ in range(repeats):
            again()
        device.wait()
        times.append((time.perf_counter() - began) / repeats)
    return min(times)


def _timed(run: Callable[[], object], seconds: float) -> float:
    """The median of runs that take so long together, after two: of one, if that is no time."""
    run(), run()
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while not times or time.perf_counter() < stop:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return median(times)


def _network(arithmetic: Arithmetic, device: Device | None) -> Network:
    network = DeepConvNet().compute_in(arithmetic, seed=0)
    return network if device is None else compute_on(network, device)


def _body(objective: Objective) -> OnDevice:
    body = objective.parameters.parts[""]
    assert isinstance(body, OnDevice)
    return body


def _images(groups: int, n: int) -> Array:
    """Training digits `(G, N, 1, 28, 28)`, 0 to 1."""
    pixels = load_dataset("mnist").train.inputs[: groups * n]
    return np.resize(pixels, (groups, n, 1, 28, 28)) * np.float64(1 / 255)


def _dlogits(groups: int, n: int) -> Array:
    return np.random.default_rng(0).uniform(-1, 1, (groups, n, 10)) / n
