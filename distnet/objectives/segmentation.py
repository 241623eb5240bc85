"""Which class every pixel is of: softmax cross-entropy of pixels (book sections 8.4.2, 8.5.3)."""

from __future__ import annotations

import math

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn import arguments
from distnet.nn.losses import PixelCrossEntropy
from distnet.nn.network import Network
from distnet.objectives.confusion import confusion_names, matrix_of, pairs_counted
from distnet.objectives.objective import Objective, Ready


@portable
class Segmentation(Objective):
    """Trains a network whose outputs are logits `(N, K, H, W)` on masks `(N, H, W)` of classes.

    ignored: the label of pixels that count for nothing, such as those of a rim.

    The loss of a batch is the mean over all of its pixels that are not ignored. How many there are
    in the whole batch is counted before it is divided, since micro-batches have more of them or
    fewer. What is counted is a confusion matrix of pixels, a sum of whole numbers over
    micro-batches and ranks; a mean of figures of ranks would be another figure.

    Metrics: loss (cross-entropy in nats), miou (see `intersection_over_union`) and pixel_accuracy,
    between 0 and 1. The score is the mIoU: a network that finds no lane has most pixels right.
    """

    def __init__(self, network: Network, *, ignored: int = 255) -> None:
        if len(network.output_shape) != 3:
            raise ValueError(
                f"Segmentation: found outputs of shape {network.output_shape}, expected (K, H, W),"
                " a logit for each class and pixel; end the network with Conv2d(K, 1)"
            )
        self.num_classes = network.output_shape[0]
        if not network.classes:
            network.classes = tuple(map(str, range(self.num_classes)))
        self.network, self.parameters = network, network.parameters
        ignored = arguments.whole("Segmentation", "ignored", ignored, minimum=-(2**31))
        self.loss = PixelCrossEntropy(ignored, arithmetic=network.arithmetic)
        self.counts = confusion_names(self.num_classes)

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
        loss = self.loss.forward(self.network.forward(x, at, copy=False), targets, divisor)
        counted = self._count(targets)
        self.network.backward(self.loss.backward(), ready=ready)
        return self.sums(loss, *counted)

    def measure(self, x: Array, targets: Array) -> Array:
        loss = self.loss.forward(self.network.forward(x, copy=False), targets, 1)
        return self.sums(loss, *self._count(targets))

    def divisor(self, targets: Array) -> float:
        return self.loss.weight_of(targets)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        matrix = self.matrix(counts)
        iou = intersection_over_union(matrix)
        occurring = iou[~np.isnan(iou)]
        known = max(1, int(matrix.sum()))
        return {
            "loss": loss,
            "miou": math.fsum(occurring) / max(1, len(occurring)),  # of any order
            "pixel_accuracy": int(matrix.trace()) / known,
        }

    def score(self, metrics: dict[str, float]) -> float:
        return metrics["miou"]

    def matrix(self, counts: Array) -> Array:
        """The counts as integers `(K, K)`: pixels of the row's class, taken for the column's."""
        return matrix_of(counts, self.num_classes)

    def _count(self, targets: Array) -> list[int]:
        known = targets != self.loss.ignored
        return pairs_counted(targets[known], self.loss.predicted[known], self.num_classes)


def intersection_over_union(matrix: Array) -> Array:
    """For each class of a confusion matrix `(K, K)` of pixels, `(K,)` float64.

    The pixels of the class that are found, divided by those that are of the class or are taken for
    it: TP / (TP + FP + FN) (Everingham et al. 2010, "The Pascal VOC Challenge", section 4.3). NaN
    for a class that neither occurs nor is predicted, which a mean leaves out.
    """
    right = matrix.diagonal()
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - right
    with np.errstate(invalid="ignore"):
        return right / union
