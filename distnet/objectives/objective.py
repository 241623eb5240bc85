"""The contract between the trainer and what is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.parameters import Parameters

Ready = Callable[[int], None]


class Objective(ABC):
    """A number to be made small: all that the trainer asks of what is trained.

    parameters: what is trained, in flat vectors.
    counts: the names of what is counted beside the loss, such as ("correct",). Counts are summed
    exactly over micro-batches and ranks, as the loss is; a confusion matrix is many of them. They
    need not be whole numbers.

    The loss of a batch is a sum over its samples divided by `divisor` of the *whole* batch, so that
    the losses and gradients of its micro-batches add up to those of the batch.
    """

    parameters: Parameters
    counts: tuple[str, ...] = ()

    @abstractmethod
    def as_input(self, inputs: Array) -> Array:
        """Inputs of the data set, `(N, ...)`, as `gradients` and `measure` take them."""

    @abstractmethod
    def gradients(
        self,
        x: Array,
        targets: Any,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        """One forward and backward pass over a micro-batch: fills `parameters.grads`.

        Those of an objective of a user's own are zero before it: what it does not come to stays so.
        Returns `(1 + len(counts),)` float64: the loss, that is the sum over the micro-batch divided
        by `divisor` (None: its own), and the counts. Running statistics go to
        `parameters.batch_statistics`. During backward, `ready(start)` says that
        `parameters.grads[start:]` is final: it may be sent from then on, and stays as it is.

        Any rank may be given any micro-batch. So what is random follows from `at`, and nothing is
        kept from one to the next.
        """

    @abstractmethod
    def measure(self, x: Array, targets: Any) -> Array:
        """The sums of `gradients` in evaluation mode, with the loss not divided."""

    def divisor(self, targets: Any) -> float:
        """What the losses of a batch with these targets are divided by: its number of samples."""
        return len(targets)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        """What is told of a batch or an epoch, by name; "loss", divided already, among it."""
        return {"loss": loss}

    def score(self, metrics: dict[str, float]) -> float:
        """How good an evaluation is, larger is better: it decides which checkpoint is the best.

        Of equal ones that with the lowest loss is.
        """
        return -metrics["loss"]

    def sums(self, loss: float, *counts: float) -> Array:
        """As `gradients` and `measure` return them."""
        return np.array([loss, *counts], np.float64)

    def checked(self, sums: Array) -> Array:
        """What they returned, float64; raises ValueError unless it is the loss and all counts."""
        if np.shape(sums) != (1 + len(self.counts),):
            found = f"shape {np.shape(sums)}" if np.ndim(sums) else f"{sums!r:.60}"
            names = ", ".join(("loss", *self.counts[:3])) + (
                ", ..." if len(self.counts) > 3 else ""
            )
            raise ValueError(
                f"{type(self).__name__}: found sums of {found}, expected ({1 + len(self.counts)},),"
                f" {names}"
            )
        return np.asarray(sums, np.float64)
