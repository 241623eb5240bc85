"""What the ranks of `bench plan` do: exchanges of messages, and steps whose computing is sleep.

Ranks that sleep do not fight for cores: so many hosts can be simulated on one machine, and what is
measured is the network and the exchange of gradients, which is the real one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch, Purpose, Words, uniform
from distnet.benchmarks.jobs import do_task
from distnet.nn import Linear, Network
from distnet.objectives.objective import Objective, Ready
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.islands import LocalSteps
from distnet.training.step.trainer import Trainer

Task = dict[str, Any]
NUM_LAYERS = 8
FORWARD_PART = 1 / 3  # of a micro-batch
NUM_BATCHES = 8  # of the data set
ISLANDS = 4
PAUSE_SECONDS = 0.02  # between exchanges, as computing would be
IN_A_ROW = 4  # exchanges: what a busy machine adds at their start counts for less


class Sleeping(Objective):
    """An objective that takes its time: forward, then backward in NUM_LAYERS equal parts.

    seconds, deviation: mean and standard deviation (as a part) of a micro-batch; the draw is a
    function of the micro-batch. taken: how long each really was.
    """

    def __init__(self, num_parameters: int, seconds: float, deviation: float) -> None:
        self.parameters = Network([Linear(1)], (num_parameters - 1,)).parameters
        self.seconds, self.spread = seconds, float(np.sqrt(np.log1p(deviation**2)))
        self.taken: list[float] = []
        self._words = Words(Purpose.NOISE)
        grads = np.random.default_rng(0).standard_normal(num_parameters)
        np.multiply(grads, 1e-3, out=self.parameters.grads, casting="same_kind")

    def as_input(self, inputs: Array) -> Array:
        return inputs

    def gradients(
        self,
        x: Array,
        targets: Any,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        began = time.perf_counter()
        seconds = self.seconds * self._factor(at)
        time.sleep(FORWARD_PART * seconds)
        size = self.parameters.grads.size
        for layer in reversed(range(NUM_LAYERS)):
            time.sleep((1 - FORWARD_PART) * seconds / NUM_LAYERS)
            if ready is not None:
                ready(size * layer // NUM_LAYERS)
        self.taken.append(time.perf_counter() - began)
        return self.sums(0.0)

    def measure(self, x: Array, targets: Any) -> Array:
        return self.sums(0.0)

    def _factor(self, at: MicroBatch) -> float:
        """Lognormal with mean 1 (Box and Muller 1958)."""
        one, other = uniform(self._words.draw(at, 2))
        normal = np.sqrt(-2 * np.log1p(-one)) * np.cos(2 * np.pi * other)
        return float(np.exp(self.spread * normal - self.spread**2 / 2))


def window_of(seconds: float) -> float:
    """From the first gradients that are final to the end of a micro-batch that takes so long."""
    return (1 - FORWARD_PART) * seconds * (1 - 1 / NUM_LAYERS)


def sleeping_trainer(comm: Communicator, task: Task, parameters: int, mode: str) -> Trainer:
    """A trainer whose computing is sleep; mode: "local", or one of the REDUCTIONS."""
    objective = Sleeping(parameters, task["micro_batch_seconds"], task["deviation"])
    inputs = np.zeros((NUM_BATCHES * task["micro_batches"], 1), np.float32)
    local = LocalSteps(islands=ISLANDS, sync_every=task["sync_every"]) if mode == "local" else None
    return make_trainer(
        objective,
        Feed(objective, inputs, inputs),
        optimizer=make_optimizer("adam", parameters),
        schedule=constant(1e-6),
        batch_size=task["micro_batches"],
        micro_batch_size=1,
        seed=0,
        comm=comm,
        reduction="exact" if local else mode,
        local=local,
    )


class Steps:
    """Takes steps, a turn at a time.

    In each turn, turns: seconds a step; alone: what of them was no sleep; means: seconds a
    micro-batch.
    """

    def __init__(self, trainer: Trainer, num_steps: int) -> None:
        self.trainer, self.num_steps, self._done = trainer, num_steps, 0
        self.turns: list[float] = []
        self.alone: list[float] = []
        self.means: list[float] = []

    def turn(self, counts: bool) -> None:
        began, first = time.perf_counter(), self._done
        objective = self.trainer.objective
        assert isinstance(objective, Sleeping)
        num_taken = len(objective.taken)
        while self._done < first + self.num_steps:
            self._done += self.trainer.advance(self._done, 1 << 30).num_steps
        if counts:
            seconds = time.perf_counter() - began
            self.turns.append(seconds / (self._done - first))
            slept = objective.taken[num_taken:]
            self.alone.append((seconds - sum(slept)) / (self._done - first))
            self.means.append(sum(slept) / max(len(slept), 1))


def steps(comm: Communicator, task: Task) -> dict[str, Any]:
    """Each mode with each number of parameters, in turn; and what the computing was like."""
    cases = {
        (mode, parameters): Steps(
            sleeping_trainer(comm, task, parameters, mode),
            task["sync_every"] if mode == "local" else task["steps"],
        )
        for parameters in task["parameters"]
        for mode in task["modes"]
    }
    for number in range(task["turns"] + 1):
        for case in cases.values():
            comm.barrier()
            case.turn(counts=number > 0)
    taken = [seconds for case in cases.values() for seconds in _taken(case.trainer)]
    low, high = np.quantile(taken, [0.16, 0.84])  # a standard deviation to either side
    return {
        "seconds": [[*case, median(run.turns)] for case, run in cases.items()],
        "alone": [[*case, median(run.alone)] for case, run in cases.items()],
        "micro_batch_seconds": median(mean for case in cases.values() for mean in case.means),
        "deviation": float((high - low) / (high + low)),
    }


def _taken(trainer: Trainer) -> Sequence[float]:
    assert isinstance(trainer.objective, Sleeping)
    return trainer.objective.taken


def messages(comm: Communicator, task: Task) -> dict[str, Any]:
    """What sums of two ranks take, by their bytes: the median of means over both and IN_A_ROW.

    Not of the slower one: of two that wait for each other, the one that is ahead waits for both.
    """
    seconds = []
    for size in task["sizes"]:
        array = np.zeros(size // 8, np.int64)
        taken = []
        for _ in range(task["repeats"]):
            time.sleep(PAUSE_SECONDS)
            comm.barrier()
            began = time.perf_counter()
            for _ in range(IN_A_ROW):
                comm.allreduce(array)
            taken.append(np.mean(comm.allgather(time.perf_counter() - began)) / IN_A_ROW)
        seconds.append(median(taken))
    return {"seconds": seconds}


TASKS = {"messages": messages, "steps": steps}


if __name__ == "__main__":
    sys.exit(do_task(TASKS))
