"""Averages of the parameters of many updates, which often predict better than the last ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import portable
from distnet.optim.optimizers import BLOCK, Optimizer, Vector, average, blocks

NUM_UPDATES = "num_updates"


class ExponentialMovingAverage:
    """The mean of the parameters after each update, where old ones count less and less.

        average = decay average + (1 - decay) parameters

    It starts as the first parameters that it is given; Kingma and Ba 2015, arXiv:1412.6980, section
    7.2, start with zeros and correct for them. `state` holds all that a checkpoint needs: "average"
    (size,) and "num_updates" (1,), int64.
    """

    def __init__(self, size: int, decay: float = 0.999, *, dtype: DTypeLike = np.float32) -> None:
        """Raises ValueError unless 0 <= decay < 1."""
        if not 0 <= decay < 1:
            raise ValueError(f"average: decay: found {decay}, expected a number >= 0 and < 1")
        self.decay = decay
        self.state = {"average": np.zeros(size, dtype), NUM_UPDATES: np.zeros(1, np.int64)}
        self._scratch = np.empty(min(size, BLOCK), dtype)

    @property
    def values(self) -> Vector:
        """The average, a view (size,); zeros before the first update."""
        return self.state["average"]

    def update(self, values: Vector) -> None:
        """Takes in the parameters after another update, (size,); raises ValueError for others."""
        mean, num_updates = self.state["average"], self.state[NUM_UPDATES]
        if values.shape != mean.shape or values.dtype != mean.dtype:
            raise ValueError(
                f"average: found values of shape {values.shape} and dtype {values.dtype}, expected "
                f"{mean.shape} and {mean.dtype}"
            )
        if num_updates[0] == 0:
            mean[...] = values
        else:
            for block in blocks(0, mean.size):
                scratch = self._scratch[: block.stop - block.start]
                average(mean[block], values[block], self.decay, scratch)
        num_updates += 1


@portable
class Averaged(Optimizer):
    """Another optimizer, whose updates move an exponential moving average of the parameters too.

    It starts as `start`, the parameters before the first update, (size,). Training does not see
    it: the average is for evaluation and use, see `exchange`. `state` is that of the optimizer and
    of the average, so that checkpoints and comparisons of ranks have both.
    """

    def __init__(self, optimizer: Optimizer, decay: float, start: Vector) -> None:
        super().__init__(optimizer.size, dtype=optimizer.dtype, arithmetic=optimizer.arithmetic)
        self.optimizer = optimizer
        self.average = ExponentialMovingAverage(optimizer.size, decay, dtype=optimizer.dtype)
        self.average.update(start)
        self.state = optimizer.state | self.average.state

    def step(
        self, params: Vector, grads: Vector, lr: float, t: int, factor: float | None = None
    ) -> None:
        self.optimizer.step(params, grads, lr, t, factor)
        self.average.update(params)

    def exchange(self, params: Vector) -> None:
        for block in blocks(0, self.size):
            mean, values = self.average.values[block], params[block]
            kept = self._scratch[0, : values.size]
            kept[...] = values
            values[...] = mean
            mean[...] = kept
