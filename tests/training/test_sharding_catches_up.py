"""A rank is lost in a step whose sum some survivors have, and others have not.

The ranks are threads of this process, so that who has got how far is no matter of chance.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distnet import Linear, Network, ReLU
from distnet.objectives import Classification
from distnet.optim.schedules import constant
from distnet.parallel import RankLost, SerialCommunicator
from distnet.parallel.communicator import Done, Process
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.replicas import ReplicasDiffer
from distnet.training.step.updates import optimizer_for

STEPS, LOST_IN = 7, 3
SECONDS = 600  # beyond which a thread has hung


class Group:
    """Ranks that are threads: what they give in a call, and that all of them have come to it."""

    def __init__(self, size):
        self.given = [None] * size
        self.barrier = threading.Barrier(size, timeout=SECONDS)

    def exchange(self, rank, value):
        self.given[rank] = value
        self.barrier.wait()
        given = list(self.given)
        self.barrier.wait()
        return given


class Thread(SerialCommunicator):
    """One of them."""

    survives_losses = True

    def __init__(self, rank, group):
        super().__init__()
        self.join(rank, group, [Process(r, "host", r) for r in range(len(group.given))])

    def join(self, rank, group, processes):
        self.rank, self.group, self.size, self.processes = rank, group, len(processes), processes

    def allreduce(self, array, op="sum"):
        rows = self.group.exchange(self.rank, array.copy())
        array[...] = np.max(rows, axis=0) if op == "max" else np.sum(rows, axis=0)

    def iallreduce(self, array, op="sum"):
        self.allreduce(array, op)
        return Done()

    def broadcast(self, array, root=0):
        array[...] = self.group.exchange(self.rank, array.copy())[root]

    def allgather(self, value):
        return self.group.exchange(self.rank, value)

    def gather_parts(self, array, cuts, root=None):
        given = self.group.exchange(self.rank, array.copy())
        for number, other in enumerate(given):
            array[cuts[number] : cuts[number + 1]] = other[cuts[number] : cuts[number + 1]]


def trainer_of(comm):
    network = Network([Linear(9), ReLU(), Linear(3)], (5,))
    objective = Classification(network)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((24, 5)).astype(np.float32), rng.integers(0, 3, 24).astype(np.uint8)
    return make_trainer(
        objective,
        Feed(objective, *data),
        optimizer=optimizer_for(objective.parameters, "adam", ema=0.5, sharing=comm),
        schedule=constant(0.05),
        batch_size=12,
        micro_batch_size=2,
        seed=0,
        comm=comm,
    )


def at_once(group, calls):
    """What they return; if one fails the others need not wait for it."""

    def run(call):
        try:
            return call()
        except BaseException:
            group.barrier.abort()
            raise

    with ThreadPoolExecutor(len(calls)) as threads:
        return [future.result(SECONDS) for future in [threads.submit(run, call) for call in calls]]


def fails(*args, **kwargs):
    raise RankLost("a test")


@pytest.mark.parametrize("behind", [(), (0,), (1,), (0, 1)], ids=["none", "0", "1", "both"])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_survivors_come_to_the_state_of_an_undisturbed_run(lost, behind):
    alone = trainer_of(SerialCommunicator())
    for step in range(STEPS):
        alone.step(step)

    group = Group(3)
    trainers = [trainer_of(Thread(rank, group)) for rank in range(3)]
    for step in range(LOST_IN):
        at_once(group, [lambda t=t, s=step: t.step(s) for t in trainers])
    survivors = [trainer for rank, trainer in enumerate(trainers) if rank != lost]
    for number, trainer in enumerate(survivors):
        trainer.comm.gather_parts = fails  # nobody is told what came out
        if number in behind:
            trainer.reducer.finish = lambda flag=False, own=trainer.reducer.finish: fails(own(flag))
    trainers[lost].comm.gather_parts = fails

    def last_step(trainer):
        try:
            trainer.step(LOST_IN)
            return LOST_IN + 1
        except RankLost:
            return LOST_IN

    done = at_once(group, [lambda t=t: last_step(t) for t in trainers])
    done = [count for rank, count in enumerate(done) if rank != lost]

    left = Group(2)
    processes = [trainers[0].comm.processes[rank] for rank in range(3) if rank != lost]
    for number, trainer in enumerate(survivors):
        trainer.comm.join(number, left, processes)
        del trainer.comm.gather_parts
        trainer.reducer.__dict__.pop("finish", None)
    most = max(done)

    def go_on(trainer, own):
        if len(set(done)) > 1:
            trainer.adopt(done.index(most), most, is_behind=own < most)
        trainer.rebuild()
        for step in range(most, STEPS):
            trainer.step(step)
        trainer.complete()
        return {name: array.copy() for name, array in trainer.state().items()}

    pairs = zip(survivors, done, strict=True)
    for state in at_once(left, [lambda t=t, n=n: go_on(t, n) for t, n in pairs]):
        for name, array in alone.state().items():
            np.testing.assert_array_equal(state[name], array, err_msg=name)


@pytest.mark.parametrize("what", ["parameter", "moment"])
def test_a_share_that_has_gone_wrong_is_told_by_its_copy(what):
    """All ranks have the same parameters: those of the one that is wrong."""
    group = Group(3)
    trainers = [trainer_of(Thread(rank, group)) for rank in range(3)]

    def steps(*numbers):
        for step in numbers:
            at_once(group, [lambda t=t, s=step: t.step(s) for t in trainers])

    steps(0, 1)
    assert at_once(group, [lambda t=t: t.verify(2) for t in trainers]) == [""] * 3
    own = trainers[1].optimizer.shares[0]
    array = trainers[1].parameters.values[own.part] if what == "parameter" else own.vectors["m"]
    array[:] *= np.float32(1.001)
    steps(2, 3)
    values = [trainer.parameters.values.tobytes() for trainer in trainers]
    assert values[0] == values[1] == values[2]

    def complain(trainer):
        with pytest.raises(ReplicasDiffer, match=r"differ, on rank 1 .* and rank 2 .*; go on from"):
            trainer.verify(4)

    at_once(group, [lambda t=t: complain(t) for t in trainers])
