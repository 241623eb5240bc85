"""Rare synchronisation: what it computes, and that it is the same wherever islands are computed."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.data import Sampler
from distnet.nn import BatchNorm, Conv2d, Dropout, Linear, MicroBatch, Network, ReLU
from distnet.objectives import Classification
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import SerialCommunicator
from distnet.training.config import ConfigError, TrainConfig
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.islands import LocalSteps, deal_islands
from distnet.training.step.replicas import ReplicasDiffer
from distnet.training.step.trainer import Trainer, TrainingDiverged
from distnet.training.step.updates import optimizer_for

SEED, LR = 3, 0.05
NUM_SAMPLES, BATCH, MICRO_BATCH = 44, 20, 3  # the last batch of an epoch has 4 samples
TOTAL = 7  # two epochs and a step
RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3, 5, 7)]
SYNCHRONOUS = LocalSteps(islands=1, sync_every=1, outer_lr=1.0, outer_momentum=0.0)


def images_and_labels() -> tuple[Array, Array]:
    rng = np.random.Generator(np.random.Philox(key=1))
    images = rng.integers(0, 256, (NUM_SAMPLES, 2, 6, 6), np.uint8)
    return images, rng.integers(0, 4, NUM_SAMPLES).astype(np.uint8)


def deep_network() -> Network:
    convolution = [Conv2d(5, 3, pad=1), BatchNorm(), ReLU(), Dropout(0.3)]
    return Network([*convolution, Linear(7), BatchNorm(), ReLU(), Linear(4)], (2, 6, 6), seed=SEED)


def plain_network() -> Network:
    return Network([Linear(6), ReLU(), Linear(4)], (2, 6, 6), seed=SEED)


def trainer_of(comm, local, network=deep_network, feed=Feed, optimizer="adam", **more) -> Trainer:
    objective = Classification(network())
    return make_trainer(
        objective,
        feed(objective, *images_and_labels()),
        optimizer=make_optimizer(optimizer, objective.parameters.values.size),
        schedule=constant(LR),
        batch_size=BATCH,
        micro_batch_size=MICRO_BATCH,
        seed=SEED,
        comm=comm,
        local=local,
        **more,
    )


def test_masters_of_16_bits_are_refused():
    objective = Classification(plain_network().compute_in("bfloat16", seed=0))
    with pytest.raises(ValueError, match="islands: found bfloat16"):
        make_trainer(
            objective,
            Feed(objective, *images_and_labels()),
            optimizer=optimizer_for(objective.parameters, "adam"),
            schedule=constant(LR),
            batch_size=BATCH,
            seed=SEED,
            comm=SerialCommunicator(),
            local=LocalSteps(),
        )


def train(trainer, total=TOTAL):
    results, done = [], 0
    while done < total:
        results.append(trainer.advance(done, total))
        done += results[-1].num_steps
    return results


def bits(trainer) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in trainer.state().items()}


@pytest.mark.parametrize("reduction", ["exact", "exact32", "exact8", "exact4"])
@pytest.mark.parametrize("num_ranks", RANKS)
def test_islands_have_the_same_bits_on_any_number_of_ranks(comm, num_ranks, reduction):
    """Three of them: several on a rank, one on each, some on several."""
    local = LocalSteps(islands=3, sync_every=3, sync_reduction=reduction)
    shared = trainer_of(comm, local, reduction="exact32")
    alone = trainer_of(SerialCommunicator(), local, reduction="exact32")
    results, expected = train(shared), train(alone)
    assert [result.num_steps for result in results] == [3, 3, 1]
    assert results == expected
    shared.complete()
    assert shared.verify(TOTAL) == ""
    assert bits(shared) == bits(alone)
    names = set(bits(alone))
    kinds = {name.split(".", 3)[0] for name in names}
    assert kinds == {"params", "statistics", "outer", "island", "sum"}
    assert ("island.2.residual.linear1.weight" in names) == (reduction in ("exact8", "exact4"))


@pytest.mark.parametrize("num_ranks", RANKS)
def test_one_island_that_always_synchronises_is_synchronous_training(comm, num_ranks):
    """Bit for bit, whatever format is named: of one island nothing has to travel."""
    island, plain = trainer_of(comm, SYNCHRONOUS), trainer_of(comm, None)
    results = train(island)
    assert results == train(plain)
    mine, others = bits(island), bits(plain)
    for name, value in others.items():
        where = f"island.0.{name}" if name.startswith("optimizer.") else name
        assert mine[where] == value, name


def by_hand(local, num_steps):
    """The same algorithm in float64, straight from the paper: SGD inside, no dropout."""
    objective = Classification(Network([Linear(6), BatchNorm(), Linear(4)], (2, 6, 6), seed=SEED))
    parameters, feed = objective.parameters, Feed(objective, *images_and_labels())
    theta, statistics = parameters.values.astype(float), parameters.statistics.copy()
    velocity = np.zeros(theta.size)
    sampler = Sampler(NUM_SAMPLES, BATCH, MICRO_BATCH, SEED)
    for start in range(0, num_steps, local.sync_every):
        arrived = []
        for island in range(local.islands):
            own, parameters.statistics[...] = theta.copy(), statistics
            for step in range(start, min(start + local.sync_every, num_steps)):
                parts = np.array_split(sampler.batch(step), local.islands)
                assert len({len(part) for part in parts}) == 1
                gradient = np.zeros(theta.size)
                moments = np.zeros(parameters.batch_statistics.size)
                size = len(parts[island])
                for low in range(0, size, MICRO_BATCH):
                    samples = parts[island][low : low + MICRO_BATCH]
                    at = MicroBatch(SEED, step, 0, share=len(samples) / size)
                    parameters.values[...] = own
                    parameters.refresh()
                    objective.gradients(*feed.training(samples, at), at, size)
                    gradient += parameters.grads
                    moments += parameters.batch_statistics
                own -= LR * gradient
                parameters.update_statistics(moments)
            arrived.append((own, parameters.statistics.copy()))
        change = theta - np.mean([each for each, _ in arrived], axis=0)
        velocity = local.outer_momentum * velocity + change
        theta = theta - local.outer_lr * (change + local.outer_momentum * velocity)
        statistics = np.mean([each for _, each in arrived], axis=0)
    return theta, statistics


@pytest.mark.parametrize("islands, reduction", [(1, "exact8"), (2, "exact"), (4, "exact32")])
def test_it_is_the_algorithm_of_the_paper(islands, reduction):
    local = LocalSteps(islands=islands, sync_every=2, sync_reduction=reduction)

    def network():
        return Network([Linear(6), BatchNorm(), Linear(4)], (2, 6, 6), seed=SEED)

    trainer = trainer_of(SerialCommunicator(), local, network, optimizer="sgd")
    train(trainer)
    theta, statistics = by_hand(local, TOTAL)
    np.testing.assert_allclose(trainer.parameters.values, theta, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(trainer.parameters.statistics, statistics, rtol=1e-4)


@pytest.mark.parametrize("coarse, islands", [("exact8", 20), ("exact4", 5)])
def test_what_few_bits_cannot_hold_is_made_up_for(coarse, islands):
    """With error feedback the islands stay nearer to where exact changes would take them."""

    def end(reduction, forgets=False):
        local = LocalSteps(
            islands=islands,
            sync_every=1,
            outer_lr=1.0,
            outer_momentum=0.0,
            sync_reduction=reduction,
        )
        trainer = trainer_of(SerialCommunicator(), local, plain_network, optimizer="sgd")
        for step in range(40):
            trainer.advance(step, 40)
            for name, array in trainer.state().items():
                if forgets and ".residual." in name:
                    array[...] = 0
        return trainer.parameters.values

    exact = end("exact")
    kept, lost = (np.linalg.norm(end(coarse, forgets) - exact) for forgets in (False, True))
    assert 0 < kept < lost / 3


def test_islands_without_samples_wait():
    """The last batch of an epoch has 4 samples for 5 islands: the first has none."""
    local = LocalSteps(islands=5, sync_every=3)
    results = train(trainer_of(SerialCommunicator(), local), total=3)
    assert [(each.num_samples, each.own.num_micro_batches) for each in results] == [(44, 24)]


class PoisonedFeed(Feed):
    """The pixels of the last island are NaN in step 4."""

    def training(self, samples: Array, at: MicroBatch) -> tuple[Array, Array]:
        x, labels = super().training(samples, at)
        if at.step == 4 and at.number == 2 * 3:
            x[...] = np.nan
        return x, labels


@pytest.mark.parametrize("num_ranks", RANKS)
def test_a_nan_on_one_island_is_told_by_all_and_changes_nothing(comm, num_ranks):
    trainer = trainer_of(comm, LocalSteps(islands=3, sync_every=3), feed=PoisonedFeed)
    trainer.advance(0, TOTAL)
    trainer.complete()
    before = bits(trainer)
    with pytest.raises(TrainingDiverged) as caught:
        trainer.advance(3, TOTAL)
    message = str(caught.value)
    assert comm.allgather(message) == [message] * comm.size
    assert message.startswith("island 2, step 4: the output of conv1 is not finite")
    assert bits(trainer) == before


@pytest.mark.parametrize("reduction", ["exact", "exact8"])
def test_changes_beyond_all_bounds_are_told(reduction):
    local = LocalSteps(islands=2, sync_every=1, sync_reduction=reduction)
    trainer = trainer_of(SerialCommunicator(), local, plain_network, optimizer="sgd")
    trainer.schedule = constant(1e39 if reduction == "exact8" else 1e30)
    before = bits(trainer)
    with np.errstate(all="ignore"), pytest.raises(TrainingDiverged) as caught:
        train(trainer)
    assert "the change of linear" in str(caught.value) and "lower --lr" in str(caught.value)
    assert bits(trainer) == before


@pytest.mark.parametrize("num_ranks", RANKS)
def test_all_stop_where_one_wants_to(comm, num_ranks):
    trainer = trainer_of(comm, LocalSteps(islands=3, sync_every=3))
    assert not trainer.advance(0, TOTAL).stop
    assert trainer.advance(3, TOTAL, lambda: comm.rank == comm.size - 1).stop


@pytest.mark.parametrize("num_ranks", [pytest.param(4, marks=pytest.mark.mpi(min_size=4))])
def test_ranks_of_one_island_that_have_come_apart_are_named(comm, num_ranks):
    """Two ranks have no majority; of three, one is outvoted and gets the state of the others."""
    trainer = trainer_of(comm, LocalSteps(islands=comm.size // 2, sync_every=2))
    trainer.advance(0, TOTAL)
    if comm.rank == 1:
        _damage(trainer, 0)
    with pytest.raises(ReplicasDiffer, match=r"island 0, among its ranks: .*optimizer\.m"):
        trainer.verify(2)

    trainer = trainer_of(comm, LocalSteps(islands=1, sync_every=2))
    trainer.advance(0, TOTAL)
    if comm.rank == 1:
        _damage(trainer, 0)
    assert "island.0.optimizer.m.conv1.weight on rank 1" in trainer.verify(2)
    assert trainer.verify(2) == ""


def _damage(trainer, island):
    named = {name: array for name, array in trainer.state().items() if "optimizer.m.conv1" in name}
    named[f"island.{island}.optimizer.m.conv1.weight"].flat[0] += 1


@pytest.mark.parametrize("num_islands", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("num_ranks", RANKS)
def test_every_island_has_ranks_and_a_leader(comm, num_ranks, num_islands):
    place = deal_islands(comm, num_islands)
    everywhere = comm.allgather((list(place.islands), place.ranks.rank, place.ranks.size))
    ranks_of = {island: [] for island in range(num_islands)}
    for rank, (islands, number, size) in enumerate(everywhere):
        for island in islands:
            ranks_of[island].append(rank)
        assert (number, size) == (0, 1) or (len(islands) == 1 and number < size)
    assert [ranks[0] for ranks in ranks_of.values()] == place.leaders
    for island, ranks in ranks_of.items():
        assert [everywhere[rank][1] for rank in ranks] == list(range(len(ranks))), island


@pytest.mark.parametrize(
    "options, words",
    [
        ({"islands": 101}, "--islands: found 101, expected at most --batch-size 100"),
        ({"islands": 64}, "take --sync-reduction exact32"),
        ({"ema": 0.9}, "--ema: found it beside --sync local"),
        ({"balance": True}, "--balance: found it beside --sync local"),
        ({"shard_optimizer": True}, "--shard-optimizer: found it beside --sync local"),
        ({"sync": "step", "islands": 2}, "--islands: sync step does not take it; local does"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**{"sync": "local", **options})
