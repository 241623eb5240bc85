"""Pixels with mean 0 and standard deviation 1, as a part of the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array, Shape
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.layer import Layer


@portable
class Standardize(Layer):
    """y = (x - mean) / std for images `(N, C, H, W)`, with given numbers for each channel C.

    In front of a network whose weights were trained on standardized pixels, so that it takes the
    pixels between 0 and 1 that every other network takes.
    """

    kind = "standardize"
    in_place = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        owner = "Standardize"
        self.mean = [arguments.real(owner, "mean", value) for value in mean]
        self.std = [
            arguments.real(owner, "std", value, "a number above 0", lambda s: s > 0)
            for value in std
        ]
        if len(self.mean) != len(self.std):
            raise arguments.refusal(owner, "std", std, f"as many numbers as in mean, {len(mean)}")

    def build(self, shape: Shape, dtype: DTypeLike = np.float32) -> Shape:
        super().build(shape, dtype)
        channels = arguments.image_shape("Standardize", shape)[0]
        if channels != len(self.mean):
            expected = f"images of {len(self.mean)} channels, as there are means"
            raise arguments.refusal("Standardize", "input shape", shape, expected)
        # (C, 1, 1), to broadcast over images
        self.shift = np.array(self.mean, dtype)[:, None, None]
        self.scale = (1 / np.array(self.std)).astype(dtype)[:, None, None]
        return shape

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = np.subtract(x, self.shift, out=self.output(x.shape, out))
        return np.multiply(y, self.scale, out=y)

    def backward(self, dy: Array, out: Array | None = None, need_dx: bool = True) -> Array | None:
        if not need_dx:
            return None
        return np.multiply(dy, self.scale, out=self.input_gradient(dy.shape, out))
