"""One step of training: the same lines in one process and on every one of many ranks.

sampler -> micro-batches -> for each of mine: pixels, forward, loss, backward, sum -> reduce ->
optimizer. The number of ranks decides who computes which micro-batch and nothing else: each one is
computed alike everywhere, and the sum of the reducer does not depend on grouping or order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

import numpy as np

from distnet.base.arrays import Array, bad_array
from distnet.data.sampler import Sampler
from distnet.objectives import Objective
from distnet.optim.optimizers import Optimizer
from distnet.optim.schedules import Schedule
from distnet.parallel.communicator import Communicator
from distnet.parallel.dealing import deal
from distnet.parallel.errors import NonFiniteGradient, RankAtFault
from distnet.parallel.sums.checked import AnswersDiffer
from distnet.parallel.sums.reducer import Reducer
from distnet.training.files.checkpoint import SUM
from distnet.training.step.audit import Audit, name_fault
from distnet.training.step.batch import Batch
from distnet.training.step.device_pass import device_pass
from distnet.training.step.device_update import DeviceExact
from distnet.training.step.diagnosis import (
    TrainingDiverged,
    bad_sample,
    describe,
    first_bad_layer,
)
from distnet.training.step.feed import Feed
from distnet.training.step.group_pass import GroupPass
from distnet.training.step.replicas import verify
from distnet.training.step.result import RankWork, StepResult
from distnet.training.step.sharding import Sharded
from distnet.training.step.stacked_pass import stacked_pass
from distnet.training.step.synchronization import EveryStep, Synchronization

OPTIMIZER, PARAMS, TOTAL = "optimizer.", "params.", "total"


class Trainer:
    """The state of a run (parameters, statistics, optimizer) and the step that advances it.

    comm: all ranks of the run; ranks: those that make a step together, all by default.
    synchronization: when all ranks have one state, and what becomes of it until then.
    memory: arrays that the next step depends on as well, such as a replay, which somebody else
    changes in place, on all ranks alike.
    speeds: those of all ranks, if micro-batches shall be dealt by them; see `parallel.dealing`.
    audit: has some micro-batches computed by two ranks, see `audit`; None: none.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        optimizer: Optimizer,
        schedule: Schedule,
        sampler: Sampler,
        feed: Feed,
        reducer: Reducer,
        comm: Communicator,
        seed: int,
        memory: Mapping[str, Array] | None = None,
        ranks: Communicator | None = None,
    ) -> None:
        self.objective, self.optimizer, self.schedule = objective, optimizer, schedule
        self.parameters = objective.parameters
        self._gradients = self.parameters.grads  # which are summed
        self.sampler, self.feed, self.reducer = sampler, feed, reducer
        self.comm, self.seed = comm, seed
        self.memory = dict(memory or {})
        self.ranks = comm if ranks is None else ranks
        self.synchronization: Synchronization = EveryStep()
        keeps = isinstance(reducer.exchange.format, DeviceExact)
        numbers, changes = reducer.units, bool(self.memory)
        on_device = device_pass(objective, feed, numbers, keeps=keeps, changes=changes)
        self.group_pass: GroupPass | None = on_device or stacked_pass(
            objective, feed, numbers, sampler
        )
        self.speeds: Sequence[int] | None = None
        self.audit: Audit | None = None

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "Trainer: found a copy or a pickle of it, whose sums would be of other arrays than its "
            "network fills, expected a copy of the network, and a trainer made of that"
        )

    def compute_apart(self) -> None:
        """From now on every micro-batch has a pass of its own, through the objective's layers.

        For whoever watches these: no bit of the result depends on it, only the time.
        """
        self.group_pass = None

    def advance(
        self, step: int, total_steps: int, wants_stop: Callable[[], bool] = lambda: False
    ) -> StepResult:
        """From the state after `step` updates to the next that all ranks have in common.

        That is one step further or, with another `synchronization`, several, but never beyond
        `total_steps`. wants_stop: whether this rank was asked to stop; called as late as the
        others can still learn it.

        Raises TrainingDiverged, and RankAtFault if there is an `audit`, on all ranks alike; the
        state is then still the old one.
        """
        return self.synchronization.advance(self, step, total_steps, wants_stop)

    def step(
        self, step: int, wants_stop: Callable[[], bool] = lambda: False, part: int = 0
    ) -> StepResult:
        """One step of `ranks`, on a part of the batch: from `step` updates to `step + 1`.

        Raises what `advance` raises, on all of these ranks alike.
        """
        began = time.perf_counter()
        objective, reducer, parameters = self.objective, self.reducer, self.parameters
        if parameters.grads is not self._gradients or parameters.are_elsewhere:
            raise ValueError(
                "step: found a network whose parameters have other vectors by now, expected those "
                "with which training began; call freeze or compute_in before that, or between two "
                "calls of fit, and make an objective of several networks anew if one of them has "
                "been joined with others since"
            )
        self.comm.position.begin_step(step)
        batch = self.batch(step, part)
        mine = self.deal(len(batch.micro_batches))
        reducer.start(mine)
        groups = batch.groups(mine, self.group_pass)
        for some in groups:
            self._add(batch, some, is_last=some is groups[-1])
        others: Sequence[int] = []
        if self.audit is not None:
            dealt = [self.deal(len(batch.micro_batches), r) for r in range(self.ranks.size)]
            others = self.audit.answer(step, dealt, batch.compute)
        grads, sums = self._reduce(batch, wants_stop())

        lr = self.schedule(step)
        self.optimizer.step(parameters.place, grads, lr, t=step + 1)
        loss, counts, statistics = self._split(sums)
        parameters.update_statistics(statistics)
        if not parameters.are_away:
            parameters.refresh()
        seconds = time.perf_counter() - began
        return StepResult(
            step=step,
            loss=loss,
            counts=counts,
            metrics=objective.metrics(loss, counts, batch.num_samples),
            num_samples=batch.num_samples,
            lr=lr,
            own=RankWork(
                num_steps=1,
                num_micro_batches=len(mine) + len(others),
                seconds=seconds,
                wait_seconds=reducer.wait_seconds,
                bytes_sent=reducer.bytes_sent,
                num_samples=sum(map(batch.sizes.__getitem__, [*mine, *others])),
                compute_squares=(seconds - reducer.wait_seconds) ** 2,
            ),
            stop=reducer.num_flags > 0,
        )

    def batch(self, step: int, part: int = 0) -> Batch:
        """The batch of a step, or its part for one island."""
        return Batch(self.objective, self.feed, self.sampler, self.seed, step, part)

    def _add(self, batch: Batch, some: Sequence[int], is_last: bool) -> None:
        """Computes some of this rank's micro-batches, the next ones, and adds them up."""
        reducer, group_pass = self.reducer, self.group_pass
        if group_pass is not None:

            def meanwhile() -> None:
                if is_last:
                    self._draw_ahead(batch, group_pass)

            result = batch.compute_together(group_pass, some, meanwhile)
            if result is not None:
                result.add_to(reducer, some)
                return
        for m in some:  # nothing is sent before the last
            ready = reducer.ready if reducer.overlaps and is_last and m == some[-1] else None
            reducer.add(m, batch.compute(m, ready))

    def _draw_ahead(self, batch: Batch, group_pass: GroupPass) -> None:
        """While a device computes: what the first pass of the next step will need of the host.

        That is known beforehand, unless samples come from something that grows.
        """
        if self.memory or type(self.sampler) is not Sampler:
            return
        following = self.batch(batch.step + 1, batch.part)
        groups = following.groups(self.deal(len(following.micro_batches)), group_pass)
        if groups:
            following.draw(group_pass, groups[0])

    def deal(self, num_micro_batches: int, rank: int | None = None) -> range:
        """The micro-batches that `rank` computes, by default this one.

        Speeds of another group of ranks say nothing.
        """
        rank, size = self.ranks.rank if rank is None else rank, self.ranks.size
        known = self.speeds is not None and len(self.speeds) == size
        return deal(num_micro_batches, rank, size, self.speeds if known else None)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While it lasts, the parameters are those to be evaluated, such as an average."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def use_evaluated(self) -> None:
        """After the last step: the parameters are those that were evaluated, for good."""
        self._exchange()

    def _exchange(self) -> None:
        """The parameters and the values to be evaluated change places."""
        if self.parameters.are_away:  # with an optimizer that keeps no others
            return
        self.optimizer.exchange(self.parameters.values)
        self.parameters.refresh()

    def state(self) -> dict[str, Array]:
        """All that the next step depends on, and all ranks have alike: arrays by name, as views.

        `params.NAME`, `statistics.NAME`, `memory.NAME`, and what the synchronization says, such as
        `optimizer.MOMENT.NAME` in the shape of the parameter.
        """
        return self._model() | self.synchronization.state(self)

    def _model(self) -> dict[str, Array]:
        """What is trained and evaluated."""
        parameters = self.parameters
        model = {f"params.{name}": array for name, array in parameters.named().items()}
        statistics = parameters.named_statistics().items()
        model |= {f"statistics.{name}": array for name, array in statistics}
        return model | {f"memory.{name}": array for name, array in self.memory.items()}

    def step_state(self) -> dict[str, Array]:
        """What a step changes besides the parameters and statistics, by name, as views.

        `optimizer.MOMENT`; `sum.NAME` of the gradient sum.
        """
        state = {f"{OPTIMIZER}{name}": array for name, array in self.optimizer.state.items()}
        return state | {f"{SUM}{name}": array for name, array in self.reducer.state.items()}

    def replicated_step_state(self) -> dict[str, Array]:
        """What of `step_state` every rank has."""
        state = self.step_state()
        if not self.optimizer.is_whole:
            state = {n: array for n, array in state.items() if not n.startswith(OPTIMIZER)}
        return state

    def restore(self, state: Mapping[str, Array]) -> None:
        """Takes `state`, which has the names and shapes of this trainer's own."""
        for name, array in self.state().items():
            np.copyto(array, state[name])
        self.optimizer.refresh()
        self.parameters.refresh()

    def adopt(self, root: int, num_done: int, is_behind: bool) -> None:
        """Takes the state of rank `root`, `num_done` updates; all ranks call it, some are behind.

        Interrupted by RankLost, it has changed nothing.
        """
        if isinstance(self.optimizer, Sharded):
            self._catch_up(self.optimizer, root, num_done, is_behind)
            return
        received = {name: array.copy() for name, array in self.state().items()}
        for array in received.values():
            self.comm.broadcast(array, root)
        self.comm.confirm()
        self.restore(received)

    def _catch_up(self, optimizer: Sharded, root: int, num_done: int, is_behind: bool) -> None:
        """Nobody has all moments: who is behind makes the update, with the sum that `root` has.

        That has not been overwritten: the sum of the next step needs those that are behind.
        """
        total = self.reducer.exchange.result
        shared = self._model() | self.synchronization.replicated(self)
        shared = {n: array for n, array in shared.items() if not n.startswith(PARAMS)}
        received = {name: array.copy() for name, array in [*shared.items(), (TOTAL, total)]}
        for array in received.values():
            self.comm.broadcast(array, root)
        self.comm.confirm()
        if is_behind:
            for name, array in shared.items():
                np.copyto(array, received[name])
            step, values = num_done - 1, self.parameters.values
            optimizer.update_shares(values, received[TOTAL], self.schedule(step), t=step + 1)
            np.copyto(total, received[TOTAL])

    def rebuild(self) -> None:
        """After a loss: what was shared out among the ranks is so again; see `Sharded.rebuild`."""
        if isinstance(self.optimizer, Sharded):
            self.optimizer.rebuild(self.parameters.values)
            self.parameters.refresh()

    def complete(self, root: int | None = None) -> None:
        """Every rank, or `root`, has the whole state afterwards, as a hash or a checkpoint needs.

        It is to be asked for before the next step.
        """
        self.optimizer.complete(root)
        self.synchronization.complete(self)

    def verify(self, num_done: int) -> str:
        """Compares the replicas after `num_done` updates; see `replicas.verify`.

        Raises ReplicasDiffer, and TrainingDiverged if their numbers are not finite.
        """
        if isinstance(self.optimizer, Sharded):
            self.optimizer.compare()
        among_some = self.synchronization.compare(self)
        arrays = self._replicated()
        repaired = "; ".join(filter(None, [among_some, verify(self.comm, arrays)]))
        if repaired:
            self.parameters.refresh()
        if bad := bad_array(arrays):
            raise TrainingDiverged(f"step {num_done - 1}: {bad} is not finite; lower --lr")
        return repaired

    def _replicated(self) -> dict[str, Array]:
        """What of the state every rank has."""
        return self._model() | self.synchronization.replicated(self)

    def _split(self, sums: Array) -> tuple[float, Array, Array]:
        """A tally: the loss, the counts, the batch statistics. (A run keeps the counts.)"""
        stop = 1 + len(self.objective.counts)
        return float(sums[0]), sums[1:stop].copy(), sums[stop:]

    def _reduce(self, batch: Batch, flag: bool) -> tuple[Array, Array]:
        """The sums over all micro-batches of all ranks that make this step."""
        step, compute = batch.step, batch.compute
        try:
            sums = self.reducer.finish(flag)
        except NonFiniteGradient as error:
            if self.audit and (fault := self.audit.judge_value(error, compute, self._replicated())):
                raise name_fault(fault, self.ranks, step) from error
            raise TrainingDiverged(f"step {step}: {self._diagnosis(batch, error)}") from error
        except AnswersDiffer as error:
            assert self.audit is not None
            fault = self.audit.judge_answers(error, compute, self._replicated())
            raise name_fault(fault, self.ranks, step) from error
        except RankAtFault as fault:
            raise name_fault(fault, self.ranks, step) from fault
        if self.audit is not None:
            self.audit.passed()
        return sums

    def _diagnosis(self, batch: Batch, error: NonFiniteGradient) -> str:
        """Found by the rank where the error came up, for all."""
        text, m = "", error.micro_batch
        if error.rank == self.ranks.rank:
            samples = batch.micro_batches[m]
            text = bad_sample(self.feed.inputs[samples], self.feed.targets[samples], samples)
        if error.rank == self.ranks.rank and not text:
            inputs = batch.inputs(m)
            layer = first_bad_layer(self.objective, inputs, batch.place(m))
            text = describe(self.objective, error, layer, None if batch.step else inputs)
        return self.ranks.allgather(text)[error.rank]
