"""Which class a sample belongs to: softmax cross-entropy (book sections 3.5, 4.2 and 5.6.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.losses import SoftmaxCrossEntropy, count_correct
from distnet.nn.network import Network
from distnet.objectives.objective import Objective, Ready


@portable
class Classification(Objective):
    """Trains a network whose outputs are logits `(N, K)` on labels `(N,)`, integers in [0, K).

    label_smoothing: the part e of the target that is spread evenly over all K classes (Szegedy et
    al. 2016, arXiv:1512.00567, section 7): the target is (1 - e) onehot(t) + e / K.
    class_weights: `(K,)`, how much a sample of each class counts. The loss of a batch is then the
    weighted mean: it is divided by the sum of the weights of all its samples.

    A network whose classes nobody has named gets their numbers as names, by which files tell that
    it is a classifier. Metrics: loss (cross-entropy in nats) and accuracy, between 0 and 1.
    """

    counts: tuple[str, ...] = ("correct",)

    def __init__(
        self,
        network: Network,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | Array | None = None,
    ) -> None:
        if len(network.output_shape) != 1:
            raise ValueError(
                f"Classification: found outputs of shape {network.output_shape}, expected (K,), one"
                " logit for each class; end the network with Linear(K)"
            )
        (num_classes,) = network.output_shape
        if isinstance(class_weights, str):
            raise ValueError(
                f"class_weights: found {class_weights!r:.60}, expected numbers (K,); "
                "balanced_weights(labels, K) makes some"
            )
        if class_weights is not None and len(class_weights) != num_classes:
            raise ValueError(
                f"class_weights: found {len(class_weights)}, expected {num_classes}, one a class"
            )
        if not network.classes:
            network.classes = tuple(map(str, range(num_classes)))
        self.network, self.parameters = network, network.parameters
        self.loss = SoftmaxCrossEntropy(
            label_smoothing, class_weights, arithmetic=network.arithmetic
        )

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
        logits = self.network.forward(x, at, copy=False)
        divisor = self.divisor(targets) if divisor is None else divisor
        loss = self.loss.forward(logits, targets, divisor)
        counted = self.count(logits, targets)
        self.network.backward(self.loss.backward(), ready=ready)
        return self.sums(loss, *counted)

    def measure(self, x: Array, targets: Array) -> Array:
        logits = self.network.forward(x, copy=False)
        loss = self.loss.forward(logits, targets, 1)
        return self.sums(loss, *self.count(logits, targets))

    def count(self, logits: Array, targets: Array) -> Sequence[int]:
        """What is counted in a micro-batch, in the order of `counts`."""
        return (count_correct(logits, targets),)

    def divisor(self, targets: Array) -> float:
        return self.loss.weight_of(targets)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        return {"loss": loss, "accuracy": float(counts[0]) / num_samples}

    def score(self, metrics: dict[str, float]) -> float:
        return metrics["accuracy"]


def balanced_weights(labels: Array, num_classes: int) -> Array:
    """`class_weights`, `(num_classes,)`, with which all classes of `labels` count alike.

    They are N / (K' count), K' being the number of classes that occur (King and Zeng 2001,
    "Logistic Regression in Rare Events Data", section 4.2); 1 for a class that does not occur.
    """
    counts = np.bincount(labels, minlength=num_classes)
    share = len(labels) / np.count_nonzero(counts)
    return np.where(counts > 0, share / np.maximum(counts, 1), 1.0)
