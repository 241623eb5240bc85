"""The outer step of training that synchronises rarely: from where all began to where they got."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from distnet.optim.optimizers import BLOCK, Vector, blocks


class OuterNesterov:
    """Nesterov's step along the mean change of several learners, which began at one point.

        d = start - mean, v = momentum v + d, p = start - lr (d + momentum v)

    Douillard et al. 2023, DiLoCo, arXiv:2311.08105, algorithm 1. With lr 1 and momentum 0 it is the
    mean itself (federated averaging: McMahan et al. 2017, arXiv:1602.05629), to the last bit: it is
    computed as p = mean + (1 - lr) d - lr momentum v.

    `state` holds "velocity" (size,). Raises ValueError for numbers that make no sense.
    """

    def __init__(
        self, size: int, lr: float = 0.7, momentum: float = 0.9, *, dtype: DTypeLike = np.float32
    ) -> None:
        if not 0 <= lr < np.inf or not 0 <= momentum < 1:
            raise ValueError(
                f"outer step: found lr {lr} and momentum {momentum}, expected lr >= 0 and "
                "0 <= momentum < 1"
            )
        self.lr, self.momentum = lr, momentum
        self.state = {"velocity": np.zeros(size, dtype)}
        self._scratch = np.empty((2, min(size, BLOCK)), dtype)

    def step(self, start: Vector, mean: Vector) -> None:
        """Turns `mean`, where the learners got on average, into the next start; both (size,)."""
        for block in blocks(0, mean.size):
            p, v = mean[block], self.state["velocity"][block]
            d, a = self._scratch[:, : p.size]
            np.subtract(start[block], p, out=d)
            v *= self.momentum
            v += d
            # What counts for nothing is left out: adding 0 would make -0 of a parameter 0.
            if self.lr != 1:
                np.multiply(d, 1 - self.lr, out=d)
                p += d
            if self.momentum:
                np.multiply(v, self.lr * self.momentum, out=a)
                p -= a
