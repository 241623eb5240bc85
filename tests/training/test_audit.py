"""Bits that are flipped on one rank are found, and the rank is named where it can be told."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from distnet.data import augmentation
from distnet.nn import BatchNorm, Conv2d, Dropout, Linear, Network, ReLU
from distnet.objectives import Classification
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import SerialCommunicator
from distnet.parallel.dealing import deal
from distnet.parallel.errors import RankAtFault
from distnet.training.config import ConfigError, TrainConfig
from distnet.training.step.assembly import make_trainer
from distnet.training.step.audit import Check, plan
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import TrainingDiverged

SEED, NUM_SAMPLES = 3, 46
ALL = 99  # micro-batches: more than a step has
VICTIM = 1


def trainer_of(comm, audit=ALL, reduction="exact", exchange="auto"):
    """Of steps of four micro-batches: 6, 6, 6, 2 samples."""
    rng = np.random.Generator(np.random.Philox(key=1))
    images = rng.integers(0, 256, (NUM_SAMPLES, 2, 6, 6), np.uint8)
    labels = rng.integers(0, 4, NUM_SAMPLES).astype(np.uint8)
    layers = [Conv2d(5, 3, pad=1), BatchNorm(), ReLU(), Dropout(0.3), Linear(7), ReLU(), Linear(4)]
    network = Network(layers, (2, 6, 6), seed=SEED)
    objective = Classification(network)
    return make_trainer(
        objective,
        Feed(objective, images, labels, augmentation(shift=1)),
        optimizer=make_optimizer("adam", network.parameters.values.size),
        schedule=constant(0.01),
        batch_size=20,
        micro_batch_size=6,
        seed=SEED,
        comm=comm,
        reduction=reduction,
        exchange=exchange,
        bucket_bytes=512,
        audit=audit,
    )


def bits(trainer):
    return {name: array.tobytes() for name, array in trainer.state().items()}


def flip(array, bit):
    """One bit of the largest element: of one that is zero it might be rounded away."""
    words = array.view(f"u{array.itemsize}")
    words[np.unravel_index(np.abs(array).argmax(), array.shape)] ^= words.dtype.type(1 << bit)


class Fault:
    """A call of `name` on `owner` that damages what it touches, `times` times or always."""

    def __init__(self, owner, name, damage, times=None, before=False):
        whole = getattr(owner, name)
        self.times = times

        def faulty(*arguments):
            if before:
                self.strike(damage, *arguments)
            result = whole(*arguments)
            if not before:
                self.strike(damage, result)
            return result

        setattr(owner, name, faulty)

    def strike(self, damage, *arguments):
        if self.times != 0:
            self.times = None if self.times is None else self.times - 1
            damage(*arguments)


def weights(trainer, times):
    """One bit of one parameter, from now on; it stays flipped."""
    flip(trainer.parameters.values, bit=20)
    trainer.parameters.refresh()


def activations(trainer, times, bit=22):
    layer = trainer.objective.network.body.layers[0]
    Fault(layer, "forward", lambda y: flip(y, bit), times)


def gradients(trainer, times):
    layer = trainer.objective.network.body.layers[4]
    weight = trainer.parameters.named_in(trainer.parameters.grads, "grad")["grad.linear1.weight"]
    Fault(layer, "backward", lambda _: flip(weight, 12), times)


@pytest.mark.parametrize("exchange", ["auto", "messages"])
@pytest.mark.parametrize("reduction", ["exact", "exact32"])
@pytest.mark.parametrize("audit", [1, ALL])
@pytest.mark.mpi(min_size=3)
def test_an_audit_decides_no_bit(comm, audit, reduction, exchange):
    """Of parameters, moments, statistics, scales; every step measures the same as well."""
    audited = trainer_of(comm, audit, reduction, exchange)
    alone = trainer_of(SerialCommunicator(), 0, reduction)
    for step in range(5):
        assert audited.step(step) == alone.step(step)
        assert bits(audited) == bits(alone)
    num_all = sum(len(alone.sampler.micro_batches(step)) for step in range(5))
    assert audited.audit.num_compared == (5 if audit == 1 else num_all)


def test_only_sums_that_have_a_check_are_audited(monkeypatch):
    """A format of a user's own may be exact, and has none."""
    monkeypatch.setattr("distnet.training.conflicts.CHECKED", {"exact32": None})
    for reduction in ("exact", "float32"):
        with pytest.raises(ConfigError, match=f"--reduction {reduction}, expected exact32: only"):
            TrainConfig(audit=1, reduction=reduction)
    TrainConfig(audit=1, reduction="exact32")


def test_a_process_on_its_own_audits_nothing(comm):
    trainer = trainer_of(comm)
    trainer.step(0)
    assert trainer.audit.num_compared == 0


@pytest.mark.parametrize("damage", [weights, activations, gradients])
@pytest.mark.parametrize("victim", [0, 1, 2])
@pytest.mark.mpi(min_size=3)
def test_a_rank_that_always_computes_wrongly_is_named(comm, victim, damage):
    trainer = trainer_of(comm)
    trainer.step(0)
    if comm.rank == victim:
        damage(trainer, times=None)
    before = bits(trainer)
    with pytest.raises(RankAtFault) as caught:
        trainer.step(1)
    message, fault = str(caught.value), caught.value
    assert comm.allgather(message) == [message] * comm.size
    assert fault.ranks == [victim]
    assert message.startswith(
        f"step 1: {comm.processes[victim]} computes wrongly: its gradient of "
    )
    assert "is not that of most others, nor is it when computed once more" in message
    if damage is weights:
        assert re.search(rf"come apart: params\..* on rank {victim}$", message)
    else:
        assert message.endswith("the states of all are equal")
    assert fault.has_spread == (damage is weights)
    assert bits(trainer) == before  # nothing of the step has become part of the state


@pytest.mark.parametrize("damage", [activations, gradients])
@pytest.mark.parametrize(
    "size", [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (2, 3)]
)
def test_one_that_did_so_once_is_named_even_of_two(comm, size, damage):
    trainer = trainer_of(comm)
    if comm.rank == VICTIM:
        damage(trainer, times=1)
    with pytest.raises(RankAtFault, match="it has computed two different gradients") as caught:
        trainer.step(0)
    assert caught.value.ranks == [VICTIM]


@pytest.mark.parametrize("damage", [weights, activations, gradients])
@pytest.mark.mpi(min_size=2)
def test_of_two_that_do_not_waver_it_cannot_be_told_who_is_wrong(comm, damage):
    trainer = trainer_of(comm)
    if comm.rank == VICTIM:
        damage(trainer, times=None)
    with pytest.raises(RankAtFault, match="it cannot be told which") as caught:
        trainer.step(0)
    assert caught.value.ranks == []
    assert caught.value.exit_code == 77


@pytest.mark.mpi(min_size=3)
def test_a_gradient_that_is_infinite_on_one_rank_alone_is_its_fault(comm):
    """A flipped bit of an exponent is no reason to advise a lower --lr."""
    trainer = trainer_of(comm)
    if comm.rank == VICTIM:
        activations(trainer, None, bit=30)
    with pytest.raises(RankAtFault) as caught, np.errstate(all="ignore"):
        trainer.step(0)
    assert caught.value.ranks == [VICTIM]


@pytest.mark.mpi(min_size=3)
def test_one_that_is_infinite_on_all_ranks_is_no_fault(comm):
    trainer = trainer_of(comm)
    trainer.parameters.values[:] = np.inf
    trainer.parameters.refresh()
    with pytest.raises(TrainingDiverged), np.errstate(all="ignore"):
        trainer.step(0)


@pytest.mark.mpi(min_size=3)
def test_few_audits_find_a_lasting_fault_sooner_or_later(comm):
    trainer = trainer_of(comm, audit=1)
    if comm.rank == VICTIM:
        gradients(trainer, times=None)
    with pytest.raises(RankAtFault) as caught:
        for step in range(100):
            trainer.step(step)
    assert caught.value.ranks == [VICTIM]
    assert caught.value.has_spread  # what was wrong before it was drawn is part of the state


def test_a_plan_is_a_draw_that_spreads_the_work():
    """All micro-batches have their turn, on ranks that have least to do, never on their own."""
    dealt = [deal(10, rank, 4) for rank in range(4)]
    drawn, pairs = Counter(), Counter()
    for step in range(400):
        checks = plan(step, SEED, dealt, most=2)
        assert checks == plan(step, SEED, dealt, most=2)
        assert len({check.micro_batch for check in checks}) == 2
        work = Counter(rank for rank, mine in enumerate(dealt) for _ in mine)
        for check in checks:
            assert check.micro_batch in dealt[check.first]
            others = [work[rank] for rank in range(4) if rank != check.first]
            assert check.first != check.second and work[check.second] == min(others)
            work[check.second] += 1
        drawn.update(check.micro_batch for check in checks)
        pairs.update((check.first, check.second) for check in checks)
    assert set(drawn) == set(range(10))
    assert max(drawn.values()) < 2 * min(drawn.values())
    assert {first for first, _ in pairs} == set(range(4))


def test_a_rank_without_work_computes_for_the_others():
    dealt = [range(1), range(1, 2), range(2, 2)]
    assert {check.second for step in range(9) for check in plan(step, 0, dealt, 1)} == {2}
    assert plan(0, 0, [range(4)], 2) == []
    assert plan(0, 0, [range(1), range(1, 1)], 9) == [Check(0, 0, 1)]
