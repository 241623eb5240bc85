"""A step on several ranks against the same step in a process of its own, bit by bit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.data import augmentation
from distnet.nn import BatchNorm, Conv2d, Dropout, Linear, MicroBatch, Network, ReLU
from distnet.objectives import Classification
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer, TrainingDiverged

SEED = 3
NUM_SAMPLES, BATCH, MICRO_BATCH = 46, 20, 6  # micro-batches of 6, 6, 6, 2; in the last batch just 6
STEPS = 6  # two epochs
RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3, 5)]


class PoisonedFeed(Feed):
    """One pixel of the last micro-batch of step 1 is NaN."""

    def training(self, samples: Array, at: MicroBatch) -> tuple[Array, Array]:
        x, labels = super().training(samples, at)
        if (at.step, at.number) == (1, 3):
            x[1, 0, 2, 2] = np.nan
        return x, labels


def images_and_labels() -> tuple[Array, Array]:
    rng = np.random.Generator(np.random.Philox(key=1))
    images = rng.integers(0, 256, (NUM_SAMPLES, 2, 6, 6), np.uint8)
    return images, rng.integers(0, 4, NUM_SAMPLES).astype(np.uint8)


def deep_network() -> Network:
    convolution = [Conv2d(5, 3, pad=1), BatchNorm(), ReLU(), Dropout(0.3)]
    return Network([*convolution, Linear(7), BatchNorm(), ReLU(), Linear(4)], (2, 6, 6), seed=SEED)


def trainer_of(
    comm: Communicator, network: Network, feed: type[Feed] = Feed, max_shift: int = 1
) -> Trainer:
    objective = Classification(network)
    return make_trainer(
        objective,
        feed(objective, *images_and_labels(), augmentation(shift=max_shift)),
        optimizer=make_optimizer("adam", network.parameters.values.size, weight_decay=1e-3),
        schedule=constant(0.01),
        batch_size=BATCH,
        micro_batch_size=MICRO_BATCH,
        seed=SEED,
        comm=comm,
        bucket_bytes=256,
    )


def bits(trainer: Trainer) -> dict[str, bytes]:
    """All that a step may change."""
    parameters, optimizer = trainer.parameters, trainer.optimizer
    vectors = {"values": parameters.values, "statistics": parameters.statistics}
    arrays = {**vectors, **optimizer.state}
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("num_ranks", RANKS)
def test_ranks_compute_the_bits_of_one_process(comm, num_ranks):
    """Parameters, BatchNorm's running moments, optimizer state, and what every step measures."""
    assert comm.size >= num_ranks
    shared = trainer_of(comm, deep_network())
    alone = trainer_of(SerialCommunicator(), deep_network())
    for step in range(STEPS):
        before = bits(alone)
        assert shared.step(step) == alone.step(step)
        after = bits(alone)
        assert bits(shared) == after
        assert [name for name in after if after[name] == before[name]] == []


@pytest.mark.parametrize("num_ranks", RANKS)
def test_running_moments_are_those_of_the_global_batch(comm, num_ranks):
    """Not a mean of the means of micro-batches, of which the last has 2 samples, the others 6."""
    network = Network([BatchNorm(momentum=0), Linear(4)], (2, 6, 6), seed=SEED)
    trainer = trainer_of(comm, network, max_shift=0)
    trainer.step(0)
    pixels = images_and_labels()[0][trainer.sampler.batch(0)] / 255
    mean, var = network.parameters.named_statistics().values()
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, pixels.var(axis=(0, 2, 3), ddof=1), rtol=1e-6)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_a_nan_on_one_rank_is_told_by_all_and_changes_nothing(comm, num_ranks):
    trainer = trainer_of(comm, deep_network(), PoisonedFeed)
    trainer.step(0)
    before = bits(trainer)
    with pytest.raises(TrainingDiverged) as caught:
        trainer.step(1)
    message = str(caught.value)
    assert comm.allgather(message) == [message] * comm.size
    assert message.startswith("step 1: the output of conv1 is not finite")
    assert f"is nan in micro-batch 3 on rank {comm.size - 1}," in message
    assert bits(trainer) == before


@pytest.mark.parametrize("made", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_copy_would_sum_what_its_network_does_not_fill(made):
    trainer = trainer_of(SerialCommunicator(), deep_network())
    with pytest.raises(TypeError, match="Trainer: found a copy or a pickle of it"):
        made(trainer)
