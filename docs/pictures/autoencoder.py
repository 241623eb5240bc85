"""Draws test digits above what the autoencoder of docs/tutorial-objective.md makes of them.

mpirun -n 4 python autoencoder.py
python docs/pictures/autoencoder.py autoencoder.safetensors --out docs/pictures/autoencoder.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import distnet
from distnet.base.arrays import Array
from distnet.experiments.pictures import write_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_DIGITS = 10


def draw(figure: Figure, rows: list[Array]) -> None:
    """Each row an array (N, 28, 28), dark where it is large."""
    panels = figure.subplots(len(rows), len(rows[0]))
    for axes, image in zip(panels.flat, np.concatenate(rows), strict=True):
        axes.imshow(image, cmap="gray_r")
        axes.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/autoencoder.png"))
    options = parser.parse_args()
    digits = distnet.load_dataset("mnist").test.inputs[:NUM_DIGITS]  # (10, 1, 28, 28)
    logits = distnet.load(options.model).predict(digits)  # (10, 784)
    rows = [digits[:, 0], (1 / (1 + np.exp(-logits))).reshape(-1, 28, 28)]
    write_picture(options.out, lambda figure: draw(figure, rows), (8, 1.7))


if __name__ == "__main__":
    main()
