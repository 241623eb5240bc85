"""Networks whose weights, or weights and activations, are +1 or -1 (book section 8.3.4).

BinaryConnect (Courbariaux et al. 2015) on the digits of MNIST with a network like chapter 8's, and
BinaryNet (2016), whose activations are signs as well, with three hidden layers of 512. What is
trained are the floats behind the signs; what is stored is a bit for each weight.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import distnet
from distnet.base.arrays import Array
from distnet.experiments import DeviceLabOptions, Lab, Numbers, Required, at_least, main
from distnet.nn import (
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Layer,
    MaxPool2d,
    Network,
    ReLU,
    Sign,
    Standardize,
)

REQUIRED = [
    Required(
        "8.3.4",
        "BinaryConnect: test accuracy (quick: of 5,000 digits, 1 epoch)",
        "binary_connect",
        at_least(0.98),
        quick=at_least(0.8),
    ),
    Required(
        "8.3.4",
        "BinaryNet: test accuracy (quick: of 5,000 digits, 3 epochs)",
        "binary_net",
        at_least(0.95),
        quick=at_least(0.75),
    ),
]
LR = 0.003  # at first; falls to nothing


def run(lab: Lab) -> Numbers:
    numbers: Numbers = {}
    for name, network in {"binary_connect": convolutions(lab), "binary_net": units(lab)}.items():
        numbers[name] = learn(lab, network, 2 if name == "binary_connect" else 6)
        numbers[f"{name}_bytes"], numbers[f"{name}_float_bytes"] = sizes(network)
    return numbers


def convolutions(lab: Lab) -> Network:
    """Binary weights, activations as ever. 14 and 7 pixels behind the poolings."""
    layers: list[Layer] = [Standardize([0.5], [0.5])]  # pixels from -1 to 1
    for channels in (16, 32):
        layers += [BinaryConv2d(channels, 3, pad=1, bias=False), BatchNorm(), ReLU()]
        layers += [BinaryConv2d(channels, 3, pad=1, bias=False), MaxPool2d(2), BatchNorm(), ReLU()]
    layers += [BinaryLinear(256, bias=False), BatchNorm(), ReLU()]
    layers += [BinaryLinear(10, bias=False), BatchNorm()]
    return lab.compute(Network(layers, (1, 28, 28), seed=lab.seed))


def units(lab: Lab) -> Network:
    """Binary weights and binary activations. Sums of +1 and -1 are whole numbers: exact."""
    layers: list[Layer] = [Standardize([0.5], [0.5])]
    for _ in range(3):
        layers += [BinaryLinear(512, bias=False), BatchNorm(), Sign()]
    layers += [BinaryLinear(10, bias=False), BatchNorm()]
    return lab.compute(Network(layers, (1, 28, 28), seed=lab.seed))


def learn(lab: Lab, network: Network, epochs: int) -> float:
    (images, labels), (test_images, test_labels) = lab.digits
    size, num_test = (5_000, 2_000) if lab.quick else (60_000, 10_000)
    epochs = epochs // 2 if lab.quick else epochs
    history = lab.fit(
        network,
        images[:size],
        labels[:size],
        epochs=epochs,
        optimizer="adam",
        lr=distnet.make_schedule("linear", LR, epochs * size // 100),
        micro_batch_size=50,
        evaluate_on={"test": (test_images[:num_test], test_labels[:num_test])},
        evaluate_every=100_000,
    )
    return history.accuracy("test")[-1]


def sizes(network: Network) -> list[int]:
    """Bytes of a file with a bit for each weight, and of one with floats."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / f"{storage}.safetensors" for storage in ("bits", "full")]
        for path in paths:
            distnet.save(network, path, storage=path.stem)
        check_same(*map(distnet.load, paths))
        return [path.stat().st_size for path in paths]


def check_same(network: Network, other: Network) -> None:
    """A file of bits has all that predictions need."""
    x: Array = np.random.default_rng(0).random((20, 1, 28, 28), np.float32)
    np.testing.assert_array_equal(other.predict(x), network.predict(x))


if __name__ == "__main__":
    main(__file__, run, REQUIRED, options=DeviceLabOptions)
