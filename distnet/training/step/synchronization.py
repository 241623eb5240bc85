"""When the ranks come to one state, and what there is of it: the synchronous way, and the contract.

`EveryStep` is data-parallel training as everybody knows it; `islands` has the rare way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from distnet.base.arrays import Array
from distnet.data.sampler import Sampler
from distnet.nn.parameters import Parameters
from distnet.objectives import Objective
from distnet.optim.schedules import Schedule
from distnet.parallel.communicator import Communicator
from distnet.parallel.sums.reducer import Reducer
from distnet.training.step.result import StepResult


class Learner(Protocol):
    """What is synchronised: the trainer of a rank, as far as it is asked; see `Trainer`."""

    objective: Objective
    parameters: Parameters
    sampler: Sampler
    schedule: Schedule
    reducer: Reducer
    comm: Communicator
    ranks: Communicator

    def step(self, step: int, wants_stop: Callable[[], bool] = ..., part: int = 0) -> StepResult:
        """One step of `ranks`, on a part of the batch."""

    def step_state(self) -> dict[str, Array]:
        """What a step changes besides the parameters and statistics."""

    def replicated_step_state(self) -> dict[str, Array]:
        """What of it every rank has now."""


class Synchronization(Protocol):
    """How a learner gets from one state that all ranks share to the next one."""

    def advance(
        self, learner: Learner, step: int, total_steps: int, wants_stop: Callable[[], bool]
    ) -> StepResult:
        """See `Trainer.advance`. Whatever it raises, the state is still the old one."""

    def previous(self, num_done: int) -> int:
        """The updates before those that led to the state after `num_done` at once."""

    def state(self, learner: Learner) -> dict[str, Array]:
        """What the next advance depends on besides parameters and statistics, by name, as views."""

    def replicated(self, learner: Learner) -> dict[str, Array]:
        """What of it every rank has now."""

    def compare(self, learner: Learner) -> str:
        """Compares what only some ranks have, as `replicas.verify` does."""

    def complete(self, learner: Learner) -> None:
        """Every rank is told what only some have: then all of `state` is replicated."""


class EveryStep:
    """All ranks share every batch and sum its gradients: they always have one state."""

    def advance(
        self, learner: Learner, step: int, total_steps: int, wants_stop: Callable[[], bool]
    ) -> StepResult:
        return learner.step(step, wants_stop)

    def previous(self, num_done: int) -> int:
        return max(0, num_done - 1)

    def state(self, learner: Learner) -> dict[str, Array]:
        return self._named(learner, learner.step_state())

    def replicated(self, learner: Learner) -> dict[str, Array]:
        return self._named(learner, learner.replicated_step_state())

    def _named(self, learner: Learner, state: dict[str, Array]) -> dict[str, Array]:
        named_in = learner.parameters.named_in
        return {
            each: view
            for name, array in state.items()
            for each, view in named_in(array, name).items()
        }

    def compare(self, learner: Learner) -> str:
        return ""

    def complete(self, learner: Learner) -> None:
        return None
