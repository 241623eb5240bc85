"""Numbers to be predicted: the mean squared error (book section 4.2.1)."""

from __future__ import annotations

import math

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch
from distnet.nn import layout
from distnet.nn.network import Network
from distnet.objectives.objective import Objective, Ready


@portable
class Regression(Objective):
    """Trains outputs y `(N, ...)` to be targets t, with the loss 1/2 sum (y - t)^2 of a sample.

    The book's error, whose gradient is y - t. Targets have as many elements a sample as outputs, in
    (C, H, W) order. Those of images, `(N, H, W)` or `(N, C, H, W)`, may be bytes: they are pixels
    and mean 0 to 1. Other bytes are refused, as they might be pixels or numbers. Metrics: loss, and
    rmse, the root of the mean of (y - t)^2 over all samples and elements.
    """

    counts = ()

    def __init__(self, network: Network) -> None:
        self.network, self.parameters = network, network.parameters

    def as_input(self, inputs: Array) -> Array:
        return self.network.as_input(inputs, copy=False)

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        difference = self._difference(self.network.forward(x, at, copy=False), targets)
        divisor = self.divisor(targets) if divisor is None else divisor
        self.network.backward(difference * difference.dtype.type(1 / divisor), ready=ready)
        return self.sums(self._half_square(difference) / divisor)

    def measure(self, x: Array, targets: Array) -> Array:
        return self.sums(
            self._half_square(self._difference(self.network.forward(x, copy=False), targets))
        )

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        size = int(np.prod(self.network.output_shape))
        return {"loss": loss, "rmse": float(np.sqrt(2 * loss / size))}

    def shaped(self, targets: Array, n: int) -> Array:
        """The targets of n samples in the shape of outputs; raises DataError if they are not."""
        shape = n, *self.network.output_shape
        if len(targets) != n or targets.size != math.prod(shape):
            raise DataError(f"targets: found shape {targets.shape}, expected {shape}")
        if not np.can_cast(targets.dtype, np.float32, "same_kind"):
            raise DataError(f"targets: found {targets.dtype}, expected numbers")
        if targets.dtype == np.uint8 and targets.ndim < 3:
            raise DataError(
                f"targets: found uint8 of shape {targets.shape}, expected floats, or images if "
                "they are pixels; targets.astype(np.float32) are numbers as they are, and divided "
                "by 255 what pixels mean"
            )
        return targets.reshape(shape)

    def _difference(self, y: Array, targets: Array) -> Array:
        targets = self.shaped(targets, len(y))
        if targets.dtype == np.uint8:
            targets = targets * y.dtype.type(1 / 255)
        difference = layout.empty(y.shape, y.dtype)
        return np.subtract(y, targets, out=difference, casting="same_kind")

    def _half_square(self, difference: Array) -> float:
        """The sum is taken in float64, in the order of the memory, that of the micro-batch."""
        squares = np.square(difference, dtype=np.float64)
        return 0.5 * float(self.network.arithmetic.sum(squares, axis=None, scratch=squares))
