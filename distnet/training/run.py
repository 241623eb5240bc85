"""A run from its first step, or the one it is resumed at, to its last: the one loop.

What happens between the steps: evaluation at the end of each epoch, comparison of the replicas,
checkpoints, a wish to stop. These are collective and have an order, so they stand here; all that a
run tells is a matter of callbacks. All ranks go through the same lines.

A callback is called on all ranks alike, after a step is complete, so it may communicate; what it
changes has to follow from what all ranks know alike: the results and the record. Only the wish to
end the run may be that of one rank, see `Run.end_early`. Those of rank 0 write to the terminal and
to files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from distnet.base.words import counted
from distnet.nn.own_layers import is_own
from distnet.parallel.communicator import Process
from distnet.parallel.errors import RankAtFault
from distnet.parallel.recovery import die
from distnet.training.evaluation import EvaluationStopped, evaluate
from distnet.training.record import Metrics, Record
from distnet.training.step.feed import Feed
from distnet.training.step.result import StepResult
from distnet.training.step.trainer import Trainer

EVALUATION_SIZE = 200  # samples of a forward pass in evaluation


class Callback:
    """Base of all callbacks; every method may be left out.

    After the loss of a rank, `begin` is called again, and `stepped` and `evaluated` may be called
    a second time for the step before it.
    """

    def begin(self, run: Run) -> None:
        """Before the first step."""

    def stepped(self, run: Run, result: StepResult) -> None:
        """After each step; `run.num_done` of them are done."""

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        """After each evaluation: the metrics of each set, by its name; see `run.record` too.

        What is to be told of this epoch as well goes to `run.figures`.
        """

    def noted(self, run: Run, event: str, text: str, **values: Any) -> None:
        """Something unusual happened: a replica was repaired, ranks were lost."""

    def end(self, run: Run) -> None:
        """After the last step, at its end or because it was asked to stop."""


class Saves(Protocol):
    """Where the states of a run go, such as `saving.Saving`."""

    def check(self) -> None:
        """After each step: looks what became of the last write."""

    def save(self, run: Run, is_best: bool) -> None:
        """Keeps the state of the run as it is now."""


class Run:
    """Trains for `total_steps` with finished parts.

    evaluate_on: sets of samples by name, evaluated every `evaluate_every` steps (0: at the end of
    each epoch) and after the last step; by the first of them the best checkpoint is chosen.
    evaluate_first: whether also before the first step. evaluation_size: samples a forward pass.
    verify_every: steps between comparisons of all ranks' states; 0: at the end of each epoch; None:
    never, but before a checkpoint. checkpoint_every: the same for checkpoints, which go to `saves`.
    stop_at: ends early after so many steps, 0 for never. wants_stop: whether this rank was asked
    to.

    num_done: steps that are complete. record: what was measured. figures: what else there is to
    tell at an evaluation. unwritten: whether a result could not be written.
    """

    def __init__(
        self,
        trainer: Trainer,
        evaluate_on: Mapping[str, Feed],
        *,
        total_steps: int,
        evaluate_every: int = 0,
        evaluate_first: bool = False,
        evaluation_size: int = EVALUATION_SIZE,
        verify_every: int | None = None,
        checkpoint_every: int = 0,
        saves: Saves | None = None,
        stop_at: int = 0,
        wants_stop: Callable[[], bool] = lambda: False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.trainer, self.comm, self.evaluate_on = trainer, trainer.comm, evaluate_on
        self.total_steps, self.stop_at, self.wants_stop = total_steps, stop_at, wants_stop
        self.evaluate_every, self.evaluate_first = evaluate_every, evaluate_first
        self.evaluation_size = evaluation_size
        self.verify_every, self.checkpoint_every, self.saves = verify_every, checkpoint_every, saves
        self.callbacks = callbacks
        self.num_done, self.record = 0, Record()
        self.figures: dict[str, Any] = {}
        self.unwritten = False
        self._asked = False  # to stop, all ranks alike
        # Whether some rank has callbacks of a user's own, and such that are told of every step.
        self._has_own = self._has_own_for_steps = False
        # The last step, if this process made one, and the record before it: what follows a step
        # can be done again if it is interrupted by the loss of a rank.
        self.latest: tuple[StepResult, Record] | None = None
        self.lost: list[Process] = []
        self._faults: list[RankAtFault] = []  # of ranks that left, not yet told

    @property
    def steps_per_epoch(self) -> int:
        return self.trainer.sampler.steps_per_epoch

    @property
    def previous(self) -> int:
        """Steps that were complete in the state before this one; see `Synchronization.previous`."""
        return self.trainer.synchronization.previous(self.num_done)

    @property
    def is_complete(self) -> bool:
        """Whether there is no step left to make, and none to evaluate."""
        return self._has_no_step_left and not self._has_to_evaluate

    @property
    def _has_no_step_left(self) -> bool:
        return self.num_done >= self.total_steps or bool(self.record.ended)

    @property
    def _has_to_evaluate(self) -> bool:
        """Whether it is time for that, and not yet done: by it the record begins new sums."""
        is_time = self._is_due(self.evaluate_every) or self._has_no_step_left
        return is_time and self.record.num_samples > 0

    def train(self) -> None:
        """To the last step, or until asked to stop; after `go_on_from` it can be called again."""
        self._find_own_callbacks()
        for callback in self.callbacks:
            callback.begin(self)
        self._after_callbacks(self._has_own)
        self._tell_of_losses()
        if self.latest is not None:
            result, self.record = self.latest
            self._asked = result.stop
            self._after(result)
        elif self._has_to_evaluate:  # which the part of the run before this one was stopped in
            self._between_steps()
        elif self.evaluate_first and not self.num_done:
            self.evaluate()
        while not self._has_to_stop():
            with np.errstate(all="ignore"):  # what is not finite is an error, and told by one
                result = self._advance()
            self._asked = result.stop
            self.latest = result, self.record
            self.num_done += result.num_steps
            self._after(result)
        _ = self.trainer.parameters.values  # for views that somebody has held since the beginning
        for callback in self.callbacks:
            callback.end(self)

    def end_early(self, reason: str) -> None:
        """For callbacks: the step that is complete is the last one of the run, on all ranks.

        To be called in `begin`, `stepped` or `evaluated`, on all ranks or on some, such as the one
        whose clock says so.
        """
        self.record = self.record.with_end(reason or "ended early")

    def evaluate(self) -> None:
        """Measures the network on all sets and tells the callbacks.

        Raises EvaluationStopped, on all ranks, if one was asked to stop meanwhile.
        """
        size = self.evaluation_size
        with (
            self.comm.position.during("evaluation"),
            np.errstate(all="ignore"),
            self.trainer.evaluating(),
        ):
            evaluated = {
                name: evaluate(feed, self.comm, min(size, len(feed.targets)), self.wants_stop)
                for name, feed in self.evaluate_on.items()
            }
        objective = self.trainer.objective
        self.record = self.record.with_evaluation(objective, evaluated, self.num_done)
        self.figures = {}
        for callback in self.callbacks:
            callback.evaluated(self, evaluated)
        self._after_callbacks(self._has_own)

    def note(self, event: str, text: str, **values: Any) -> None:
        """Tells the callbacks of something unusual."""
        for callback in self.callbacks:
            callback.noted(self, event, text, **values)

    def go_on_from(self, root: int, lost: list[Process]) -> None:
        """All survivors take the state of rank `root`; `lost` are gone.

        Interrupted by another loss, it leaves each rank with its old state or the new one, whole.
        """
        states = self.comm.allgather((self.num_done, self.latest, self.record))
        num_done = states[root][0]
        if len({state[0] for state in states}) > 1:
            self.trainer.adopt(root, num_done, is_behind=self.num_done < num_done)
        else:
            self.comm.confirm()
        self.num_done, self.latest, self.record = states[root]
        self.trainer.rebuild()
        self.lost = self.lost + lost

    def _advance(self) -> StepResult:
        """To the next state of all ranks; those that an audit finds at fault leave, if they may."""
        try:
            return self.trainer.advance(self.num_done, self.total_steps, self.wants_stop)
        except RankAtFault as fault:
            can_go_on = self.comm.survives_losses and len(fault.ranks) < self.comm.size
            if not (can_go_on and fault.ranks):
                text = f"{fault}; go on from the last checkpoint with --resume, on other processors"
                if fault.has_spread:
                    text += "; what was computed wrongly before, unnoticed, may be part of it"
                raise RankAtFault(text, fault.ranks, fault.has_spread) from None
            if self.comm.rank in fault.ranks:
                die()
            self._faults.append(fault)
            self.comm.barrier()  # raises RankLost, as they do not come to it
            raise

    def _has_to_stop(self) -> bool:
        reached = self.previous < self.stop_at <= self.num_done
        return self._has_no_step_left or self._asked or reached

    def _after(self, result: StepResult) -> None:
        """What follows a step."""
        self.record = self.record.with_step(result)
        for callback in self.callbacks:
            callback.stepped(self, result)
        self._after_callbacks(self._has_own_for_steps)
        if self.saves is not None:
            self.saves.check()
        self._between_steps()

    def _find_own_callbacks(self) -> None:
        """All ranks learn of them, since one may have callbacks that the others lack."""
        own = [type(callback) for callback in self.callbacks if is_own(callback)]
        found = np.array([bool(own), any(k.stepped is not Callback.stepped for k in own)], np.int64)
        self.comm.allreduce(found, "max")
        self._has_own, self._has_own_for_steps = map(bool, found)

    def _after_callbacks(self, some_are_own: bool) -> None:
        """What a user's own have ended on some ranks ends on all; what they have written counts.

        Layers may have derived something from the parameters, in a forward pass that they made.
        """
        if not some_are_own:
            return
        if not self.trainer.parameters.are_away:
            self.trainer.parameters.refresh()
        ended = np.array([self.record.ended != ""], np.int64)
        self.comm.allreduce(ended, "max")
        if ended[0]:
            self.end_early(next(filter(None, self.comm.allgather(self.record.ended))))

    def _between_steps(self) -> None:
        """Evaluation, comparison and checkpoint, as far as it is time for them."""
        is_best = self._evaluate_if_due() and self.record.best_step == self.num_done
        saves = self._has_to_stop() or is_best or self._is_due(self.checkpoint_every)
        saves = saves and self.saves is not None
        if saves or self._is_due(self.verify_every):
            self._verify(completes=saves)
        if saves and self.saves is not None:
            self.saves.save(self, is_best)

    def _evaluate_if_due(self) -> bool:
        """Whether that was done: not if this part of the run is asked to stop meanwhile."""
        if not self._has_to_evaluate:
            return False
        try:
            self.evaluate()
        except EvaluationStopped:
            self._asked = True
            return False
        return True

    def _is_due(self, every: int | None) -> bool:
        """For what happens every so many steps, or (0) at the end of each epoch; None: never.

        After several steps at once, if one of them was it.
        """
        every = self.steps_per_epoch if every == 0 else every
        return every is not None and self.num_done // every > self.previous // every

    def _verify(self, completes: bool) -> None:
        """Compares the replicas, and tells if one had to be repaired."""
        with self.comm.position.during("comparison of the ranks"):
            if completes:
                self.trainer.complete(root=0)
            repaired = self.trainer.verify(self.num_done)
        if repaired:
            text = (
                f"step {self.num_done}: {repaired}; what it computed since the last comparison is "
                "part of the result: for the exact one go on from an earlier checkpoint"
            )
            self.note("repaired", text, what=repaired)

    def _tell_of_losses(self) -> None:
        faults, self._faults = self._faults, []
        for fault in faults:
            text = f"{fault}; it has left"
            if fault.has_spread:
                text += (
                    ", and what it computed wrongly before, unnoticed, may be part of the result: "
                    "for the exact one go on from an earlier checkpoint"
                )
            self.note("fault", text, what=str(fault))
        if self.lost:
            lost, self.lost = self.lost, []
            text = f"lost {', '.join(map(str, lost))} after step {self.num_done}; "
            text += counted(self.comm.size, "rank goes on", "ranks go on")
            ranks = [process.rank for process in lost]
            self.note("recovery", text, lost=ranks, ranks=self.comm.size)
