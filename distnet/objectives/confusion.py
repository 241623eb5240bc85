"""Classification that counts which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.nn.ensemble import Ensemble
from distnet.nn.network import Network
from distnet.objectives.classification import Classification


@portable
class Confusion(Classification):
    """Classification whose counts are a confusion matrix, `(K, K)` in row order.

    The element in row t and column p is the number of samples of class t that the network takes for
    class p. Like all counts they are summed exactly over micro-batches and ranks.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        (self.num_classes,) = network.output_shape
        self.counts = confusion_names(self.num_classes)

    def count(self, logits: Array, targets: Array) -> Sequence[int]:
        return pairs_counted(targets, logits.argmax(axis=1), self.num_classes)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        return {"loss": loss, "accuracy": float(self.matrix(counts).trace()) / num_samples}

    def matrix(self, counts: Array) -> Array:
        """The counts as integers `(K, K)`."""
        return matrix_of(counts, self.num_classes)


@portable
class EnsembleConfusion(Confusion):
    """A confusion matrix of an ensemble, which can be measured but not trained."""

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__(ensemble.networks[0])
        self.ensemble = ensemble

    def as_input(self, inputs: Array) -> Array:
        return inputs  # each network makes its own of them

    def measure(self, x: Array, targets: Array) -> Array:
        logits = self.ensemble.forward(x)
        loss = self.loss.forward(logits, targets, 1)
        return self.sums(loss, *self.count(logits, targets))

    def gradients(self, *_: object, **__: object) -> Array:
        raise TypeError("found an ensemble to be trained, expected its networks, one by one")


def confusion_names(num_classes: int) -> tuple[str, ...]:
    """What each element of a confusion matrix counts, in row order."""
    classes = range(num_classes)
    return tuple(f"class {t} taken for {p}" for t in classes for p in classes)


def pairs_counted(truth: Array, predicted: Array, num_classes: int) -> list[int]:
    """The elements of the confusion matrix of classes and predictions, `(N,)` each."""
    pairs = num_classes * truth.astype(np.int64) + predicted
    return np.bincount(pairs, minlength=num_classes**2).tolist()


def matrix_of(counts: Array, num_classes: int) -> Array:
    """Summed counts as integers `(K, K)`."""
    return counts.astype(np.int64).reshape(num_classes, num_classes)


def precision_recall_f1(matrix: Array) -> tuple[Array, Array, Array]:
    """Three figures for each class, `(K,)` float64, of a confusion matrix `(K, K)`.

    precision: the part of what was taken for the class that is of it; recall: the part of the class
    that was found; f1: their harmonic mean, 2 TP / (2 TP + FP + FN). NaN where there is nothing to
    divide by, such as the recall of a class without samples.
    """
    right, taken, samples = matrix.diagonal(), matrix.sum(axis=0), matrix.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return right / taken, right / samples, 2 * right / (taken + samples)
