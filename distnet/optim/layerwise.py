"""LARS and LAMB: each array moves by a step that is in proportion to its own length.

Large batches need large learning rates, at which some arrays would move by many times their length
and others hardly at all. So the step of an array is scaled by its *trust ratio*. Arrays that do not
decay (biases, scales of normalization) have ratio 1, and so has one whose ratio is 0 / 0 or 0, such
as zeros at the start.

An array that starts small stays small for long: the book's small networks, whose weights start with
standard deviation 0.01, learn slowly by these rules.

Norms are Euclidean and those of whole arrays: a vector may be cut between arrays only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.options import Option
from distnet.optim.optimizers import (
    Adam,
    Momentum,
    Optimizer,
    Segment,
    Vector,
    blocks,
    squared_norm,
)


class Layerwise(Optimizer):
    """What the two share: the arrays and their norms."""

    elementwise = False

    def __init__(self, size: int, *, decayed: Vector | None = None, **common: Any) -> None:
        super().__init__(size, decayed=decayed, **common)
        self._trusts = [
            decayed is None or bool(decayed[start:stop].any()) for start, stop in self.segments
        ]

    def _arrays(self) -> Iterator[tuple[Segment, bool]]:
        """The place of each array, and whether it has a trust ratio."""
        yield from zip(self.segments, self._trusts, strict=True)

    def _squares(self, vector: Vector) -> float:
        return squared_norm(vector, self._doubles, self.arithmetic)


@portable
class LARS(Layerwise, Momentum):
    """Momentum with the trust ratio r = trust |p| / (|g| + |weight_decay p|) for each array.

        v = momentum v - lr r (g + weight_decay p), p += v

    You, Gitman and Ginsburg 2017, arXiv:1708.03888, algorithm 1. They take a smaller trust and a
    larger lr; but biases move by lr alone, which therefore is that of Momentum here.
    """

    options = {
        **Momentum.options,
        "trust": Option(
            "how far an array moves for lr 1, of its length",
            0.001,
            metavar="X",
            limits={">": 0, "<=": 1},
        ),
    }
    lr = 0.2

    def _walk(self, params: Vector, grads: Vector, lr: float, t: int, factor: float) -> None:
        for (start, stop), trusts in self._arrays():
            ratio = self._ratio(params, grads, start, stop, factor) if trusts else 1.0
            for block in blocks(start, stop):
                g = self._scaled(grads[block], factor)
                self.step_block(block, params[block], g, self.factors(lr * ratio, t))

    def _ratio(self, params: Vector, grads: Vector, start: int, stop: int, factor: float) -> float:
        length = math.sqrt(self._squares(params[start:stop]))
        slope = factor * math.sqrt(self._squares(grads[start:stop]))
        slope += math.sqrt(self._decay_squares(params, start, stop))
        return self.hyper["trust"] * length / slope if length and slope else 1.0

    def _decay_squares(self, params: Vector, start: int, stop: int) -> float:
        """The squared norm of weight_decay p."""
        if self._decay is None:
            return 0.0
        total = 0.0
        for block in blocks(start, stop):
            penalty = self._scratch[0, : block.stop - block.start]
            np.multiply(params[block], self._decay[block], out=penalty)
            total += self._squares(penalty)
        return total


@portable
class LAMB(Layerwise, Adam):
    """Adam whose direction d, with the decay in it, is scaled to the length of each array.

        d = m_hat / (sqrt(v_hat) + eps) + weight_decay p, p -= lr |p| / |d| d

    m_hat and v_hat as in Adam. You et al. 2020, arXiv:1904.00962, algorithm 2, without a bound of
    |p|.
    """

    options = {
        "beta1": Adam.options["beta1"],
        "beta2": Adam.options["beta2"],
        "eps": replace(Adam.options["eps"], default=1e-6),
    }
    lr = 0.005

    def _walk(self, params: Vector, grads: Vector, lr: float, t: int, factor: float) -> None:
        for (start, stop), trusts in self._arrays():
            squares = 0.0
            for block in blocks(start, stop):
                m, v = (vector[block] for vector in self.state.values())
                g = self._scaled(grads[block], factor)
                self._learn(g, m, v, self._scratch[0, : m.size])
                squares += self._squares(self._direction(params[block], block, t))
            length = math.sqrt(self._squares(params[start:stop]))
            ratio = length / math.sqrt(squares) if trusts and length and squares else 1.0
            for block in blocks(start, stop):  # once more: a vector of directions would cost memory
                direction = self._direction(params[block], block, t)
                direction *= lr * ratio
                params[block] -= direction

    def _direction(self, p: Vector, block: slice, t: int) -> Vector:
        """d, on one block, in scratch memory."""
        a, b = self._scratch[:2, : p.size]
        m, v = (vector[block] for vector in self.state.values())
        power = self.arithmetic.power
        correction = math.sqrt(1 - power(self.hyper["beta2"], t))
        np.sqrt(v, out=a)
        a += self.hyper["eps"] * correction
        np.divide(m, a, out=a)
        a *= correction / (1 - power(self.hyper["beta1"], t))
        if self._decay is not None:
            np.multiply(p, self._decay[block], out=b)
            a += b
        return a
