"""What a GPU is asked for by a convolution: products, bytes, and calls (book section 8.3.2).

Counted, so it needs no GPU: how many numbers each convolution of the deep network multiplies, how
many it copies when windows are unrolled to rows as the book does it, and how many calls of the
array module a pass makes. And that this way has the bits of the processor's own. What was measured
on a GPU, by `python -m distnet.bench device --json FILE`, is in a file beside this one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.device import Device, compute_on
from distnet.experiments import Lab, Numbers, Required, at_least, exactly, main
from distnet.models import DeepConvNet
from distnet.nn import Conv2d, Network
from distnet.objectives import Classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required("8.3.2", "numbers that differ between both ways", "different", exactly(0)),
    Required("8.3.2", "calls for ten times the images, beside", "more_calls", exactly(0)),
    Required("8.3.2", "multiply-adds of a digit in convolutions, part", "conv", at_least(0.98)),
    Required("8.3.2", "numbers unrolled for each of an image", "copies", at_least(9)),
]
BYTES = 4  # of a float32
MEASURED = Path(__file__).with_name("on_a_gpu_h100.json")


def run(lab: Lab) -> Numbers:
    network = DeepConvNet(seed=lab.seed)
    layers = [(n, each) for n, each in network.body.named_layers() if isinstance(each, Conv2d)]
    products = {name: layer.multiply_adds for name, layer in layers}
    unrolled = {name: windows_of(layer) for name, layer in layers}
    images = {name: int(np.prod(layer.input_shape)) for name, layer in layers}
    outputs = {name: int(np.prod(layer.output_shape)) for name, layer in layers}
    total = network.multiply_adds
    lab.picture(
        "on_a_gpu", lambda figure: draw(figure, products, images, outputs, unrolled), (9, 3.6)
    )
    measured = json.loads(MEASURED.read_text())
    lab.picture("on_a_gpu_measured", lambda figure: draw_measured(figure, measured), (9, 3.6))
    layers_us = np.array(
        [times for _, *times in measured["layers"]]
    )  # forward, backward, unrolling
    few, many = (calls_of_a_pass(lab, n) for n in ((1, 2) if lab.quick else (10, 100)))
    return {
        "different": different_numbers(lab, 5 if lab.quick else 100),
        "more_calls": many - few,
        "calls": many,
        "conv": sum(products.values()) / total,
        "copies": sum(unrolled.values()) / sum(images.values()),
        "unrolling": float(layers_us[:, 2].sum() / layers_us[:, :2].sum()),
        "in_layers_us": float(layers_us[:, :2].sum()),
        "products": list(products.values()),
        "unrolled_kb": [BYTES * count / 1000 for count in unrolled.values()],
        "images_kb": [BYTES * count / 1000 for count in images.values()],
    }


def windows_of(layer: Conv2d) -> int:
    """The numbers in the unrolled windows of an image: (OH OW, C KH KW)."""
    g = layer.geometry
    return g.oh * g.ow * g.c * g.kh * g.kw


def different_numbers(lab: Lab, n: int) -> int:
    """Of the gradient of n digits in portable arithmetic, and their loss."""
    networks = [DeepConvNet().compute_in("portable", seed=lab.seed) for _ in range(2)]
    compute_on(networks[1], Device())  # NumPy in the place of CuPy
    own, other = (gradient(lab, network, n) for network in networks)
    return int(np.count_nonzero(own != other))


def gradient(lab: Lab, network: Network, n: int) -> Array:
    objective = Classification(network)
    images, labels = (each[:n] for each in lab.digits[0])
    sums = objective.gradients(objective.as_input(images), labels, MicroBatch())
    return np.concatenate([sums, objective.parameters.grads])


def calls_of_a_pass(lab: Lab, n: int) -> int:
    """Of the array module, forward and backward, in float32: so many kernels are started."""
    device = Counting()
    gradient(lab, compute_on(DeepConvNet(seed=lab.seed), device), n)
    return device.xp.calls


class Counted(np.ndarray):
    """An array that counts what is computed with it."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return Counting.xp.call(getattr(ufunc, method), *inputs, **kwargs)


class CountingModule:
    """NumPy; calls: how often it was asked to compute something."""

    calls = 0

    def __getattr__(self, name: str) -> Any:
        if name == "lib":  # views: nothing is computed
            return np.lib
        function = getattr(np, name)
        return lambda *args, **kwargs: self.call(function, *args, **kwargs)

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """One call, whatever NumPy makes of it."""
        self.calls += 1
        result = function(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})
        return result.view(Counted) if isinstance(result, np.ndarray) else result


def plain(x: Any) -> Any:
    """As an array that counts nothing, or several."""
    if isinstance(x, tuple) and any(isinstance(each, np.ndarray) for each in x):
        return tuple(map(plain, x))
    return x.view(np.ndarray) if isinstance(x, Counted) else x


class Counting(Device):
    """A device that counts its calls."""

    xp = CountingModule()

    def __init__(self) -> None:
        super().__init__()
        self.xp.calls = 0

    def to_device(self, array: Array) -> Any:
        return super().to_device(array).view(Counted)

    def to_host(self, array: Any) -> Array:
        return super().to_host(plain(array))


def draw(
    figure: Figure,
    products: dict[str, int],
    images: dict[str, int],
    outputs: dict[str, int],
    unrolled: dict[str, int],
) -> None:
    """Bytes of each layer, and what is multiplied for each of them."""
    left, right = figure.subplots(1, 2)
    names, place = list(products), np.arange(len(products))
    moved = {
        "the image": images,
        "windows, written and read": {name: 2 * unrolled[name] for name in names},
        "the output": outputs,
    }
    start = np.zeros(len(names))
    for what, numbers in moved.items():
        kilobytes = np.array([BYTES * numbers[name] / 1000 for name in names])
        left.bar(place, kilobytes, bottom=start, label=what)
        start += kilobytes
    left.set(title="forward: what is read and written", ylabel="kB for an image")
    left.set_xticks(place, names)
    left.legend()
    direct = [products[n] / (BYTES * (images[n] + outputs[n])) for n in names]
    by_rows = [products[n] / (BYTES * (images[n] + outputs[n] + 2 * unrolled[n])) for n in names]
    right.bar(place - 0.2, direct, 0.4, label="windows read where they lie")
    right.bar(place + 0.2, by_rows, 0.4, label="windows unrolled")
    right.set(title="multiply-adds for each byte moved")
    right.set_xticks(place, names)
    right.legend()


def draw_measured(figure: Figure, measured: dict[str, Any]) -> None:
    """Images a second, and the microseconds of each convolution."""
    left, right = figure.subplots(1, 2)
    steps = {(name, batch): rate for name, batch, n, _, rate in measured["steps"] if n != 25}
    steps |= {(f"PyTorch, {name}", batch): rate for name, batch, rate in measured["pytorch 2.11"]}
    names = list(dict.fromkeys(name for name, _ in steps))
    place = np.arange(len(names))
    for shift, batch in ((0.2, 100), (-0.2, 1000)):
        rates = [steps[name, batch] / 1000 for name in names]
        bars = left.barh(place + shift, rates, 0.4, label=f"batches of {batch}")
        left.bar_label(bars, [f" {rate:.0f}" for rate in rates])
    left.set_yticks(place, [name if "," in name else f"distnet, {name}" for name in names])
    left.invert_yaxis()
    left.set(title="H100: thousand images a second, training", xlim=(0, 320))
    left.legend()
    rows = [(name, *times) for name, *times in measured["layers"] if name.startswith("conv")]
    labels, forward, backward, unrolling = zip(*rows, strict=True)
    place = np.arange(len(rows))
    once = np.array(unrolling) / 2  # in each direction
    for shift, name, times in ((-0.2, "forward", forward), (0.2, "backward", backward)):
        right.bar(place + shift, np.array(times) - once, 0.38, label=name)
        last = right.bar(place + shift, once, 0.38, np.array(times) - once, color="0.6")
    last.set_label("of it unrolling")
    right.set_xticks(place, labels)
    right.set(title="microseconds for 100 images", ylabel="portable, 4 micro-batches at a time")
    right.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
