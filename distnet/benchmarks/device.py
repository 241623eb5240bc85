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
from distnet.models import DeepConvNet
from distnet.nn import Network
from distnet.objectives import Classification
from distnet.parallel import SerialCommunicator
from distnet.training.known_answer import check_device, fingerprint_of

# Those of whose layers all are on devices.
ON_DEVICES = ("deep_convnet", "residual", "autoencoder", "turned", "mlp_adam")
NEAR = 1e-4  # how far float32 gradients may be from the CPU's, relative to the largest
SIZES = ((25, 1), (25, 4), (100, 1), (25, 40), (1000, 1))  # samples of a micro-batch, how many
QUICK_SIZES = ((5, 1), (5, 2))
WHAT = "measurement"
SECONDS = 2.0  # for one figure; what is left of four minutes is for starting, and the checks


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
    for name in ON_DEVICES[-1:] if quick else ON_DEVICES:
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
    body, host = (_network(Portable(), each) for each in (device, None))
    images, dlogits = _images(3, n), _dlogits(3, n)
    ats = [MicroBatch(number=number) for number in range(3)]
    together = _body(body).forward_group(images, ats)
    _body(body).backward_group(dlogits)
    for g, at in enumerate(ats):
        _body(body).take_gradients(g)
        alone = host.forward(images[g], at)
        host.backward(dlogits[g])
        if not np.array_equal(together[g], alone):
            return f"the logits of micro-batch {g} are others"
        if not np.array_equal(body.parameters.grads, host.parameters.grads):
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
    """DeepConvNet forward and backward, logits and gradients on the host: images a second."""
    lasting, rows = 0 if quick else SECONDS, []
    for arithmetic in (FLOAT, Portable()):
        for n, groups in sizes:
            if groups == 1 or arithmetic.rounds:  # in float32 a group may have other bits
                seconds = _timed(_group_pass(device, arithmetic, n, groups), lasting)
                rows.append((arithmetic.name, n, groups, n * groups / seconds))
    n = QUICK_SIZES[0][0] if quick else 100
    rate = n / _timed(_objective_pass(device, n), lasting)
    print("\nDeepConvNet, forward and backward, logits and gradients brought to the host")
    head = ["", "micro-batch", "at a time", "images/s"]
    lines = [[name, f"{n}", f"{groups}", f"{rate:,.0f}"] for name, n, groups, rate in rows]
    last = ["portable, with input, loss and count on the host", f"{n}", "1", f"{rate:,.0f}"]
    print("\n".join(aligned([head, *lines, last])))
    return rows


def _group_pass(
    device: Device, arithmetic: Arithmetic, n: int, groups: int
) -> Callable[[], object]:
    body = _body(_network(arithmetic, device))
    images, dlogits = (
        each.astype(body.dtype) for each in (_images(groups, n), _dlogits(groups, n))
    )
    ats = [MicroBatch(number=g) for g in range(groups)]

    def run() -> None:
        body.refresh()  # as after an update
        body.forward_group(images, ats)
        body.backward_group(dlogits)

    return run


def _objective_pass(device: Device, n: int) -> Callable[[], object]:
    objective = Classification(_network(Portable(), device))
    images, labels = _images(1, n)[0], np.arange(n) % 10
    return lambda: objective.gradients(objective.as_input(images), labels, MicroBatch())


def _show_layers(device: Device, n: int, groups: int) -> list[Any]:
    """Where the time of a pass goes: each layer by itself, waited for."""
    body = _body(_network(Portable(), device))
    names = [name for name, _ in body.named_layers()]
    ats = [MicroBatch(number=g) for g in range(groups)]
    times: dict[str, list[list[float]]] = {name: [[], []] for name in names}
    for _ in range(3):
        x = device.to_device(np.moveaxis(_images(groups, n), 2, -1))
        for name, stage in zip(names, body.chain.stages, strict=True):
            times[name][0].append(_waited(device, lambda s=stage, x=x: s.forward(x, ats)))  # type: ignore[misc]
            x = stage.forward(x, ats)
        dy = device.to_device(_dlogits(groups, n))
        for name, stage in reversed(list(zip(names, body.chain.stages, strict=True))):
            times[name][1].append(_waited(device, lambda s=stage, dy=dy: s.backward(dy, True)))  # type: ignore[misc]
            dy = stage.backward(dy, True)
    rows = [(name, 1e6 * min(times[name][0]), 1e6 * min(times[name][1])) for name in names]
    print(f"\nlayers of DeepConvNet, portable, {groups} micro-batches of {n}: microseconds")
    lines = [[name, f"{forward:,.0f}", f"{backward:,.0f}"] for name, forward, backward in rows]
    print("\n".join(aligned([["", "forward", "backward"], *lines])))
    return rows


def _waited(device: Device, call: Callable[[], Any]) -> float:
    """Seconds of a call and of what it has begun; one number is fetched, for which all waits."""
    began = time.perf_counter()
    result = call()
    device.to_host(result[:1, :1].ravel()[:1])
    return time.perf_counter() - began


def _timed(run: Callable[[], object], seconds: float) -> float:
    """The median of runs that take so long together, after two; at least three."""
    run(), run()
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < stop:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return median(times)


def _network(arithmetic: Arithmetic, device: Device | None) -> Network:
    network = DeepConvNet().compute_in(arithmetic, seed=0)
    return network if device is None else compute_on(network, device)


def _body(network: Network) -> OnDevice:
    assert isinstance(network.body, OnDevice)
    return network.body


def _images(groups: int, n: int) -> Array:
    """Training digits `(G, N, 1, 28, 28)`, 0 to 1."""
    pixels = load_dataset("mnist").train.inputs[: groups * n]
    return np.resize(pixels, (groups, n, 1, 28, 28)) * np.float64(1 / 255)


def _dlogits(groups: int, n: int) -> Array:
    return np.random.default_rng(0).uniform(-1, 1, (groups, n, 10)) / n
