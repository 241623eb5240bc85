"""Updates that leave no parameter out of its bounds, for whoever keeps what comes out of them."""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import portable
from distnet.optim.optimizers import Optimizer, Vector


@portable
class Bounded(Optimizer):
    """Another optimizer, after whose updates parameters are cut to their bounds.

    Layers do that to the parameters that they compute with. An average, or a master copy, sees them
    before the layers do. bounds: the largest magnitude of each parameter, `(size,)`. `state` is
    that of the optimizer.
    """

    def __init__(self, optimizer: Optimizer, bounds: Vector) -> None:
        super().__init__(optimizer.size, dtype=optimizer.dtype, arithmetic=optimizer.arithmetic)
        self.optimizer, self.bounds, self.state = optimizer, bounds, optimizer.state

    def step(
        self, params: Vector, grads: Vector, lr: float, t: int, factor: float | None = None
    ) -> None:
        self.optimizer.step(params, grads, lr, t, factor)
        np.clip(params, -self.bounds, self.bounds, out=params)
