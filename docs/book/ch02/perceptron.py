"""The perceptron and the gates of chapter 2: what the scripts of this folder share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bits = NDArray[np.uint8]

# The inputs of a gate in the order of the book's truth tables, one row each: (4, 2).
ROWS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.uint8)


@dataclass(frozen=True)
class Perceptron:
    """y = 1 if w·x + b > 0, else 0 (book equation 2.2).

    Called with one array for each weight, all of one shape, it returns that shape.
    """

    weights: tuple[float, ...]
    bias: float

    def __call__(self, *inputs: ArrayLike) -> Bits:
        total = sum(w * np.asarray(x) for w, x in zip(self.weights, inputs, strict=True))
        return np.asarray(total + self.bias > 0, np.uint8)


AND = Perceptron((0.5, 0.5), -0.7)
NAND = Perceptron((-0.5, -0.5), 0.7)
OR = Perceptron((0.5, 0.5), -0.2)


def xor(a: ArrayLike, b: ArrayLike) -> Bits:
    """Two layers: no single perceptron does it (book section 2.5)."""
    return AND(NAND(a, b), OR(a, b))
