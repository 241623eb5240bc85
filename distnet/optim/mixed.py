"""Mixed precision: weights of 16 bits are used, and weights of float32 are trained."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import Arithmetic
from distnet.optim.optimizers import Optimizer, Vector, blocks


class MasterWeights(Optimizer):
    """Another optimizer on weights in float32, of which the network gets 16 bits after each update.

    An update is often smaller than half of the last place of a 16-bit weight, and would be rounded
    away every time; in the master weights it adds up (Micikevicius et al. 2018, arXiv:1710.03740,
    section 3.1). They start as `start` (size,), which is rounded. What somebody else writes into
    the parameters, such as a callback, is taken over. `state` is that of the optimizer and "master"
    (size,).
    """

    def __init__(self, optimizer: Optimizer, start: Vector, arithmetic: Arithmetic) -> None:
        super().__init__(optimizer.size, dtype=optimizer.dtype, arithmetic=arithmetic)
        self.optimizer = optimizer
        self.state = optimizer.state | {"master": start.astype(np.float32, copy=True)}
        arithmetic.store(start)

    def step(
        self, params: Vector, grads: Vector, lr: float, t: int, factor: float | None = None
    ) -> None:
        master = self.state["master"]
        self._take_written(params, master)
        self.optimizer.step(master, grads, lr, t, factor)
        params[...] = master
        self.arithmetic.store(params)

    def _take_written(self, params: Vector, master: Vector) -> None:
        """Where the parameters are not what the last update has left, they count."""
        for block in blocks(0, self.size):
            rounded = self._scratch[0, : block.stop - block.start]
            rounded[...] = master[block]
            self.arithmetic.store(rounded)
            written = rounded != params[block]
            if written.any():
                master[block][written] = params[block][written]
