"""Squared error and cross-entropy of the book's two predictions (book section 4.2).

Cross-entropy here is the exact one. The book's code adds 1e-7 inside the logarithm, so that log 0
cannot happen, and prints 0.5108254571 where -log 0.6 = 0.5108256238: with logits instead of
probabilities nothing needs to be added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_most, main, near
from distnet.nn import SoftmaxCrossEntropy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "A3", "squared error of a right and a wrong answer", "squared", near([0.0975, 0.5975], 1e-7)
    ),
    Required(
        "A3",
        "cross-entropy, exact",
        "cross_entropy",
        near([0.510825623765991, 2.302585092994046], 1e-7),
    ),
    Required(
        "A3",
        "cross-entropy with the book's 1e-7 inside the logarithm",
        "book_cross_entropy",
        near([0.510825457099338, 2.302584092994546], 1e-12),
    ),
    Required("4.2.4", "loss of a batch minus the mean of its rows'", "batch_error", at_most(1e-15)),
]

LABEL = 2
PREDICTIONS = np.array(
    [
        [0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0],  # "2": right
        [0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0],  # "7": wrong
    ]
)


def squared_error(p: Array, label: int) -> float:
    """Half the squared distance between p and the one-hot vector of the label."""
    return float(0.5 * np.sum((p - np.eye(len(p))[label]) ** 2))


def cross_entropy(p: Array, labels: Array) -> float:
    """-log p of the label, the mean over the rows of p `(N, K)`."""
    with np.errstate(divide="ignore"):
        logits = np.log(p)  # softmax(log p) is p
    return SoftmaxCrossEntropy().forward(logits, labels)


def run(lab: Lab) -> Numbers:
    labels = np.full(len(PREDICTIONS), LABEL)
    rows = [cross_entropy(p[None], labels[:1]) for p in PREDICTIONS]
    lab.picture("losses", draw_losses)
    return {
        "squared": [squared_error(p, LABEL) for p in PREDICTIONS],
        "cross_entropy": rows,
        "book_cross_entropy": -np.log(PREDICTIONS[:, LABEL] + 1e-7),
        "batch_error": abs(cross_entropy(PREDICTIONS, labels) - np.mean(rows)),
    }


def draw_losses(figure: Figure) -> None:
    """Both losses of a prediction of two classes, as a function of the right one's probability."""
    p = np.linspace(0.01, 1, 100)
    axes = figure.subplots()
    axes.plot(p, -np.log(p), label="cross-entropy, −log p (nats)")
    axes.plot(p, (1 - p) ** 2, label="squared error, (1 − p)²")
    axes.set(xlabel="probability p of the right one of two classes", ylabel="loss", ylim=(0, None))
    axes.legend()


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
