"""What a run has measured so far: the part of its state that is not in the network or optimizer.

Every rank keeps the same, and checkpoints hold it, so that the averages, the best accuracy and the
summary of a resumed run are those of one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distnet.training.checkpoint import CheckpointError
from distnet.training.trainer import StepResult


@dataclass
class Progress:
    """Sums over the steps since the last evaluation, its results, and the best accuracy ever.

    Losses are means over samples; accuracies lie between 0 and 1. Before the first evaluation
    there are no results: `num_evaluated` is 0.
    """

    loss_sum: float = 0.0
    num_correct: int = 0
    num_samples: int = 0
    train_loss: float = 0.0
    train_accuracy: float = 0.0
    test_loss: float = 0.0
    test_accuracy: float = 0.0
    num_evaluated: int = 0
    best_test_accuracy: float = 0.0
    best_step: int = 0

    @classmethod
    def restored(cls, entries: Mapping[str, Any]) -> Progress:
        """As a checkpoint holds it; raises CheckpointError for what is none."""
        expected = {name: type(value) for name, value in asdict(cls()).items()}
        found = {name: type(value) for name, value in entries.items()}
        if found != expected:
            raise CheckpointError(
                f"checkpoint: found progress {sorted(found)}, expected {sorted(expected)} as "
                "numbers; read it with the version of distnet that wrote it"
            )
        return cls(**entries)

    def entries(self) -> dict[str, float]:
        """By name, as a checkpoint holds it."""
        return asdict(self)

    def add_step(self, result: StepResult) -> None:
        """Counts the training samples of a step."""
        self.loss_sum += result.loss * result.num_samples
        self.num_correct += round(result.counts[0])
        self.num_samples += result.num_samples

    def add_evaluation(self, evaluation: Mapping[str, float], step: int) -> None:
        """Ends an epoch: takes the results after `step` updates and begins new sums."""
        self.train_loss = self.loss_sum / self.num_samples
        self.train_accuracy = self.num_correct / self.num_samples
        self.test_loss, self.test_accuracy = evaluation["loss"], evaluation["accuracy"]
        self.num_evaluated += 1
        if self.num_evaluated == 1 or self.test_accuracy > self.best_test_accuracy:
            self.best_test_accuracy, self.best_step = self.test_accuracy, step
        self.loss_sum, self.num_correct, self.num_samples = 0.0, 0, 0
