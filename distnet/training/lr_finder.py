"""A learning rate that suits a network and its data, found by trying all of them once.

Smith 2017, "Cyclical learning rates for training neural networks", arXiv:1506.01186, section 3.3:
train for a moment while the learning rate grows, and look where the loss falls and where it bursts.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

from distnet.base.arithmetic import Arithmetic, portable
from distnet.base.words import counted
from distnet.nn.network import Network
from distnet.objectives import Objective
from distnet.training.fit import fit
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult

SMOOTHING = 0.9  # the decay of the moving average of the losses
FEW = 10  # losses, 1 / (1 - SMOOTHING): an average of fewer is low or high by the luck of a batch
BURST = 4.0  # times the lowest loss: there is nothing to learn from what follows
MARGIN = 10.0  # the loss falls best at about a tenth of where it falls no more


@dataclass(frozen=True)
class LearningRates:
    """What each learning rate did: `losses[i]` is that of the step before `lrs[i]` was applied.

    smoothed: the moving average of the losses, freed of its bias towards zero. suggestion: a tenth
    of the learning rate where that is lowest, after the first 10 steps if there are more.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float


def find_lr(
    network: Network | Objective,
    images: Any,
    labels: Any,
    *,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 200,
    **settings: Any,
) -> LearningRates:
    """Trains a copy of `network` for at most `steps`, with a learning rate that grows each step.

    It grows by one factor from `lowest` to `highest`; the end comes early when the smoothed loss is
    4 times its lowest value, or not finite. settings: those of `fit`, such as `optimizer`,
    `batch_size`, `seed` and `comm`; the result is the same on any number of ranks. The network
    itself stays as it is. Raises what `fit` does, and ValueError for learning rates that do not
    grow and for fewer than 2 steps.
    """
    if not 0 < lowest < highest < math.inf or steps < 2:
        raise ValueError(
            f"find_lr: found {counted(steps, 'step')} from {lowest} to {highest}, expected at "
            "least 2 and 0 < lowest < highest"
        )
    arithmetic = network.parameters.arithmetic
    growth = arithmetic.root(highest / lowest, steps - 1)

    @portable
    def rate(step: int) -> float:
        return lowest * arithmetic.power(growth, step)

    smooth = _Smooth(arithmetic)
    callbacks = [smooth, *settings.pop("callbacks", ())]
    history = fit(
        copy.deepcopy(network),
        images,
        labels,
        steps=steps,
        lr=rate,
        callbacks=callbacks,
        may_diverge=True,
        **settings,
    )
    lrs = [rate(step) for step in range(len(history.losses))]
    settled = smooth.values[FEW:] or smooth.values
    best = smooth.values.index(min(settled), len(smooth.values) - len(settled))
    return LearningRates(lrs, history.losses, smooth.values, lrs[best] / MARGIN)


class _Smooth(Callback):
    """The moving average of the losses; ends the run when it bursts."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self.values: list[float] = []
        self._sum = 0.0

    def stepped(self, run: Run, result: StepResult) -> None:
        self._sum = SMOOTHING * self._sum + (1 - SMOOTHING) * result.loss
        lacking = self._arithmetic.power(SMOOTHING, len(self.values) + 1)
        self.values.append(self._sum / (1 - lacking))
        if self.values[-1] > BURST * min(self.values):
            run.end_early("the loss bursts")
