"""How many test digits a network names on paper that is lit from one side, and has a grain.

python docs/measurements/photographs.py RUN
"""

from __future__ import annotations

import argparse

import numpy as np

import distnet
from distnet.base.arrays import Array
from distnet.base.resampling import scaling
from distnet.data.handwriting import as_mnist

# Name, brightness of the paper and of the ink, shade on one side, grain.
PAPERS = [
    ("white paper, black ink", 255, 0, 0.0, 0),
    ("blackboard", 30, 220, 0.0, 0),
    ("shade of 40 %", 200, 60, 0.4, 0),
    ("grain of 8", 200, 60, 0.0, 8),
    ("shade and grain", 200, 60, 0.4, 8),
    ("pencil, shade and grain", 220, 140, 0.3, 4),
]
SIDE, SHEET, PLACE = 168, (300, 400), (90, 150)  # pixels: of a digit, of the paper, where it is


def photograph(
    digit: Array, paper: float, ink: float, shade: float, grain: float, rng: np.random.Generator
) -> Array:
    """A digit `(28, 28)` on a sheet of paper, bytes."""
    weights = scaling(len(digit), SIDE)
    share = np.zeros(SHEET)
    top, left = PLACE
    share[top : top + SIDE, left : left + SIDE] = weights @ digit @ weights.T / 255
    light = 1 - shade * np.linspace(0, 1, SHEET[1])
    seen = (paper + (ink - paper) * share) * light + grain * rng.standard_normal(SHEET)
    return seen.clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--number", type=int, default=400)
    options = parser.parse_args()
    network, digits = distnet.load(options.model), distnet.load_dataset("mnist").test
    images, labels = (array[: options.number] for array in digits)

    def named(pictures: Array) -> float:
        return float(np.mean(network.predict(pictures).argmax(axis=1) == labels))

    print(f"{'MNIST itself':<24} {named(images):.2%}")
    for name, *paper in PAPERS:
        rng = np.random.Generator(np.random.Philox(key=0))
        sheets = [photograph(digit, *paper, rng) for digit in images[:, 0]]
        print(f"{name:<24} {named(np.stack([as_mnist(each) for each in sheets])[:, None]):.2%}")


if __name__ == "__main__":
    main()
