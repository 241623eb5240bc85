"""What a step of training has measured: on its batch, and of the rank that tells it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from distnet.base.arrays import Array
from distnet.objectives import Objective


@dataclass
class RankWork:
    """What one rank did: seconds in steps, of these waiting for others, and so on.

    num_samples: those that it has computed itself. compute_squares: the sum, over its steps, of
    the square of the seconds that it computed.
    """

    num_steps: int = 0
    num_micro_batches: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    bytes_sent: int = 0
    num_samples: int = 0
    compute_squares: float = 0.0

    @property
    def compute_seconds(self) -> float:
        return self.seconds - self.wait_seconds

    @property
    def compute_deviation(self) -> float:
        """The standard deviation of the seconds that a step was computed, as a part of them."""
        if not self.num_steps or not self.compute_seconds:
            return 0.0
        mean = self.compute_seconds / self.num_steps
        return math.sqrt(max(self.compute_squares / self.num_steps - mean**2, 0.0)) / mean

    def add(self, other: RankWork) -> None:
        """Adds up what was done one after the other."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class StepResult:
    """What a step measured on its global batch before it changed the parameters.

    Or `num_steps` steps from `step` on, where ranks synchronise that rarely: the mean loss, the sum
    of the counts, the learning rate of the last one.

    loss, counts, metrics: those of the objective. own: what this rank did. stop: whether any rank
    was asked to stop, and all shall, after this step.
    """

    step: int
    loss: float
    counts: Array
    metrics: dict[str, float]
    num_samples: int
    lr: float
    own: RankWork = field(compare=False)
    stop: bool
    num_steps: int = 1


def joined(results: Sequence[StepResult], objective: Objective) -> StepResult:
    """The result of several steps one after another, at least one."""
    first, last = results[0], results[-1]
    if first is last:
        return first
    num_samples = sum(result.num_samples for result in results)
    loss = sum(result.loss * result.num_samples for result in results) / num_samples
    counts = np.sum([result.counts for result in results], axis=0)
    own = RankWork()
    for result in results:
        own.add(result.own)
    return replace(
        last,
        step=first.step,
        loss=loss,
        counts=counts,
        metrics=objective.metrics(loss, counts, num_samples),
        num_samples=num_samples,
        own=own,
        num_steps=last.step + last.num_steps - first.step,
    )
