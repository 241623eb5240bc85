"""What a run has measured so far: the part of its state that is not in the trainer.

Every rank keeps the same, and checkpoints hold it, so that the averages, the best result and the
summary of a resumed run are those of one that was never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from distnet.objectives import Objective
from distnet.training.files.checkpoint import CheckpointError
from distnet.training.step.result import StepResult

Metrics = dict[str, float]


@dataclass(frozen=True)
class Record:
    """Sums over the steps since the last evaluation, its results, and the best one ever.

    loss_sum, counts, num_samples: over the steps since then. train: the metrics of the steps before
    the last evaluation, on average; evaluated: those of each set that was evaluated, by its name.
    best_score: of the objective, on the first of these sets, after `best_step` steps, of equal ones
    that with the lowest loss; since_best: evaluations since the score rose. ended: why the run has
    ended before its last step, "" if it has not. chain: the newest of the step hashes, see
    `step_hashes`; "" without any.
    """

    loss_sum: float = 0.0
    counts: tuple[float, ...] = ()
    num_samples: int = 0
    train: Metrics = field(default_factory=dict)
    evaluated: dict[str, Metrics] = field(default_factory=dict)
    num_evaluated: int = 0
    best: Metrics = field(default_factory=dict)
    best_score: float = 0.0
    best_step: int = 0
    since_best: int = 0
    ended: str = ""
    chain: str = ""

    @classmethod
    def restored(cls, entries: Mapping[str, Any]) -> Record:
        """The record that a checkpoint holds; raises CheckpointError for what is none."""
        entries = {"chain": "", **entries}  # which the first checkpoints lack
        expected = {name: _kind(value) for name, value in asdict(cls()).items()}
        found = {name: _kind(value) for name, value in entries.items()}
        if found != expected:
            raise CheckpointError(
                f"checkpoint: found record {sorted(found)}, expected {sorted(expected)}; read it "
                "with the version of distnet that wrote it"
            )
        return cls(**{**entries, "counts": tuple(entries["counts"])})

    def entries(self) -> dict[str, Any]:
        """By name, as a checkpoint holds it."""
        return asdict(self) | {"counts": list(self.counts)}

    def with_step(self, result: StepResult) -> Record:
        """Counts the training samples of a step."""
        before = self.counts or (0.0,) * len(result.counts)
        return replace(
            self,
            loss_sum=self.loss_sum + result.loss * result.num_samples,
            counts=tuple(a + float(b) for a, b in zip(before, result.counts, strict=True)),
            num_samples=self.num_samples + result.num_samples,
        )

    def with_evaluation(
        self, objective: Objective, evaluated: Mapping[str, Metrics], step: int
    ) -> Record:
        """Ends an epoch: takes the results after `step` updates and begins new sums."""
        first = next(iter(evaluated.values()), None)
        score = objective.score(first) if first else 0.0
        is_first = not self.best or math.isnan(self.best_score)  # than which none is higher
        is_higher = first is not None and (is_first or score > self.best_score)
        new = replace(
            self,
            train=self.averages(objective),
            evaluated={name: dict(metrics) for name, metrics in evaluated.items()},
            num_evaluated=self.num_evaluated + 1,
            since_best=0 if is_higher else self.since_best + 1,
            loss_sum=0.0,
            counts=(),
            num_samples=0,
        )
        if first is None or not (is_higher or self._has_lower_loss(first, score)):
            return new
        return replace(new, best=dict(first), best_score=score, best_step=step)

    def _has_lower_loss(self, metrics: Metrics, score: float) -> bool:
        """Whether an evaluation is better than the best one of the same score."""
        return score == self.best_score and metrics["loss"] < self.best["loss"]

    def with_end(self, reason: str) -> Record:
        """The run ends here, and not only this part of it."""
        return replace(self, ended=reason)

    def with_chain(self, chain: str) -> Record:
        """Another step hash has been added to the chain."""
        return replace(self, chain=chain)

    def averages(self, objective: Objective) -> Metrics:
        """The metrics of the steps since the last evaluation; right after it those before it."""
        if not self.num_samples:
            return dict(self.train)
        return objective.metrics(
            self.loss_sum / self.num_samples, np.array(self.counts), self.num_samples
        )


def _kind(value: object) -> type:
    """Lists and tuples are one to JSON."""
    return list if isinstance(value, tuple) else type(value)
