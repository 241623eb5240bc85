"""Softmax and cross-entropy as a graph of single operations (book appendix A).

Its backward pass, node by node, gives what the fused layer computes in one line, (y - t) / N.
"""

from __future__ import annotations

import numpy as np
from graph import Exp, Log, Multiply, Reciprocal, Repeat, Sum

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_most, main
from distnet.nn import SoftmaxCrossEntropy, softmax

REQUIRED = [
    Required("A6", "loss of the graph against the fused layer", "loss_error", at_most(1e-12)),
    Required(
        "A6", "gradient of the graph against the fused layer", "gradient_error", at_most(1e-12)
    ),
    Required("A.2", "gradient of the graph against (y - t) / N", "formula_error", at_most(1e-12)),
]


class SoftmaxWithLoss:
    """L = -1/N sum(t log y), y = exp(a) / sum(exp(a)), for a and t `(N, K)`; rows of t sum to 1."""

    def __init__(self, num_classes: int) -> None:
        self.exp, self.sum, self.reciprocal = Exp(), Sum(), Reciprocal()
        self.branch, self.divide = Repeat(num_classes), Multiply()
        self.log, self.select = Log(), Multiply()

    def forward(self, a: Array, t: Array) -> float:
        e = self.exp.forward(a)
        total = self.sum.forward(e)
        y = self.divide.forward(e, self.branch.forward(self.reciprocal.forward(total)))
        return -float(self.select.forward(t, self.log.forward(y)).sum()) / len(a)

    def backward(self, dl: float = 1) -> Array:
        d_terms = np.full(self.exp.z.shape, -dl / len(self.exp.z))
        _, d_log = self.select.backward(d_terms)
        de, d_quotient = self.divide.backward(self.log.backward(d_log))
        d_total = self.reciprocal.backward(self.branch.backward(d_quotient))
        # exp(a) went two ways, to the numerator and into the sum: both derivatives add up.
        return self.exp.backward(de + self.sum.backward(d_total))


def run(lab: Lab) -> Numbers:
    n, k = 8, 10
    rng = np.random.default_rng(lab.seed)
    a, labels = 3 * rng.standard_normal((n, k)), rng.integers(0, k, n)
    t = np.eye(k)[labels]
    graph, fused = SoftmaxWithLoss(k), SoftmaxCrossEntropy()
    loss_error = abs(graph.forward(a, t) - fused.forward(a, labels))
    da = graph.backward()
    return {
        "loss_error": loss_error,
        "gradient_error": np.abs(da - fused.backward()).max(),
        "formula_error": np.abs(da - (softmax(a) - t) / n).max(),
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
