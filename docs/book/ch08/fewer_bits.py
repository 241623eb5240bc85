"""A network in fewer bits: half the bytes, a quarter, and still the same answers (section 8.3.4).

DeepConvNet learns in float32. Then its weights are stored in float16 and bfloat16, or it is made to
compute with whole numbers, of eight bits and fewer. What counts is how many of the 10,000 test
digits it takes for another digit than before: the accuracy hides changes that cancel.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import distnet
from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_most, main
from distnet.models import DeepConvNet
from distnet.nn import Network
from distnet.nn.quantization import EXACT, sum_bounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "8.3.4", "float16 weights: difference of accuracy", "float16_difference", at_most(0.001)
    ),
    Required("8.3.4", "int8: predictions changed, of 10,000 (quick: 2,000)", "changed", at_most(5)),
    Required("8.3.4", "int8: largest possible sum, exact in float32", "sum", at_most(EXACT - 1)),
]
NUM_CALIBRATING = 500
# Bits of the weights, bits of the activations.
BITS = {"int8": (8, 8), "6 and 6 bits": (6, 6), "4 and 8 bits": (4, 8), "4 and 4 bits": (4, 4)}
BITS |= {"3 and 4 bits": (3, 4)}


def run(lab: Lab) -> Numbers:
    (images, labels), (test_images, test_labels) = lab.digits
    size, num_test = (20_000, 2_000) if lab.quick else (60_000, 10_000)
    network = DeepConvNet(seed=lab.seed)
    epochs = 1 if lab.quick else 3
    lab.fit(
        network,
        images[:size],
        labels[:size],
        epochs=epochs,
        optimizer="adam",
        lr=distnet.make_schedule("linear", 0.003, epochs * size // 100),
        micro_batch_size=25,
    )
    test = test_images[:num_test], test_labels[:num_test]
    whole = network.predict(test[0])
    rows = {"float32": row(network, whole, test, "full")}
    for storage in ("float16", "bfloat16"):
        rows[storage] = row(stored(network, storage), whole, test, storage)
    for name, (weight_bits, activation_bits) in BITS.items():
        bits: dict[str, Any] = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        small = distnet.quantize(network, images[:NUM_CALIBRATING], **bits)
        rows[name] = row(small, whole, test, "int8")
    lab.picture("fewer_bits", lambda figure: draw_rows(figure, rows, num_test), (6.4, 3.6))
    difference = abs(rows["float16"]["accuracy"] - rows["float32"]["accuracy"])
    int8 = rows["int8"]
    numbers = {"float16_difference": difference, "changed": int8["changed"], "sum": int8["sum"]}
    columns = {f"all_{name}": [each[name] for each in rows.values()] for name in int8}
    return numbers | columns


def row(network: Network, whole: Array, test: tuple[Array, Array], storage: str) -> Numbers:
    """How good a network is, how often it disagrees with the whole one, and its bytes on disk."""
    images, labels = test
    logits = network.predict(images)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.safetensors"
        distnet.save(network, path, storage=storage)
        size = path.stat().st_size
    return {
        "bytes": size,
        "accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
        "changed": int(np.sum(logits.argmax(axis=1) != whole.argmax(axis=1))),
        "sum": max(sum_bounds(network).values(), default=0),
    }


def stored(network: Network, storage: str) -> Network:
    """What comes back from a file."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.safetensors"
        distnet.save(network, path, storage=storage)
        return distnet.load(path)


def draw_rows(figure: Figure, rows: dict[str, Numbers], num_test: int) -> None:
    """On a scale that has a place for none."""
    axes = figure.subplots()
    names = list(rows)[1:]
    changed = [rows[name]["changed"] for name in names]
    bars = axes.bar(names, changed, color="tab:blue")
    axes.bar_label(bars, [str(number) for number in changed])
    axes.set_yscale("symlog", linthresh=1)
    axes.set(ylabel=f"changed predictions of {num_test:,}", ylim=(0, 3 * max(*changed, 1)))
    axes.tick_params(axis="x", labelrotation=20)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
