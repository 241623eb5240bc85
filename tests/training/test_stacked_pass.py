"""Training in stacks of micro-batches against one after another, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.data import augmentation
from distnet.nn import LeakyReLU, Linear, Network, ReLU
from distnet.objectives import Classification
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.step import stacked_pass
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Augment, Feed
from distnet.training.step.stacked_pass import StackedPass
from distnet.training.step.trainer import Trainer, TrainingDiverged
from distnet.training.step.updates import optimizer_for

SHAPE, NUM_SAMPLES = (1, 5, 5), 60
RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3)]


def trainer_of(
    batch: int = 26,
    micro_batch: int = 4,
    comm: Communicator | None = None,
    *,
    network: Network | None = None,
    images: Array | None = None,
    labels: Array | None = None,
    augment: Augment | None = None,
    feed: type[Feed] = Feed,
    reduction: str = "exact",
    audit: int = 0,
    **settings: object,
) -> Trainer:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (NUM_SAMPLES, *SHAPE), np.uint8) if images is None else images
    if labels is None:
        labels = rng.integers(0, 4, NUM_SAMPLES).astype(np.uint8)
    if augment is None and images is None:
        augment = augmentation(shift=1)
    network = network or Network([Linear(30), ReLU(), Linear(4)], SHAPE, seed=1)
    objective = Classification(network, **settings)
    return make_trainer(
        objective,
        feed(objective, pixels, labels, augment),
        optimizer=optimizer_for(objective.parameters, "adam"),
        schedule=constant(0.01),
        batch_size=batch,
        micro_batch_size=micro_batch,
        seed=3,
        comm=comm or SerialCommunicator(),
        reduction=reduction,
        audit=audit,
    )


def numbers_of(trainer: Trainer, steps: int = 5) -> list[object]:
    results = [trainer.step(step) for step in range(steps)]
    measured = [(r.loss, r.counts.tolist(), r.num_samples) for r in results]
    return [*measured, trainer.parameters.values.tobytes()]


@pytest.mark.parametrize(
    "settings", [{}, {"label_smoothing": 0.1}, {"class_weights": [1, 2, 3, 4]}]
)
@pytest.mark.parametrize(("batch", "micro_batch"), [(26, 4), (24, 3), (60, 1), (60, 32)])
def test_stacks_change_no_bit(batch, micro_batch, settings, monkeypatch):
    """Micro-batches that are short, and stacks that are."""
    monkeypatch.setattr(stacked_pass, "MOST_MICRO_BATCHES", 5)
    apart = trainer_of(batch, micro_batch, **settings)
    apart.compute_apart()
    together = trainer_of(batch, micro_batch, **settings)
    sizes = record_stacks(together, monkeypatch)
    assert numbers_of(together) == numbers_of(apart)
    assert max(sizes) == min(5, batch // micro_batch)


def test_a_slope_that_is_changed_while_training_holds_for_stacks():
    def trained(apart: bool) -> bytes:
        network = Network([Linear(30), LeakyReLU(), Linear(4)], SHAPE, seed=1)
        trainer = trainer_of(network=network)
        if apart:
            trainer.compute_apart()
        for step in range(3):
            network.body.layers[1].slope = 0.25 * step
            trainer.step(step)
        return trainer.parameters.values.tobytes()

    assert trained(apart=False) == trained(apart=True)


def record_stacks(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many micro-batches each pass of several has from now on."""
    sizes: list[int] = []
    call = StackedPass.__call__

    def noting(self: StackedPass, samples: list[Array], *args: object) -> object:
        sizes.append(len(samples))
        return call(self, samples, *args)

    monkeypatch.setattr(StackedPass, "__call__", noting)
    return sizes


@pytest.mark.parametrize("num_ranks", RANKS)
def test_several_ranks_have_the_bits_of_one(comm, num_ranks):
    assert comm.size >= num_ranks
    assert numbers_of(trainer_of(comm=comm)) == numbers_of(trainer_of())


@pytest.mark.parametrize("num_ranks", RANKS)
def test_a_value_that_cannot_be_summed_is_traced_to_its_micro_batch(comm, num_ranks):
    """Sample 9 is not finite: all ranks name it and its micro-batch, and nothing has changed."""
    images = np.random.default_rng(0).random((NUM_SAMPLES, *SHAPE)).astype(np.float32)
    images[9, 0, 1, 1] = np.nan
    messages = []
    for compute_apart in (False, True):
        trainer = trainer_of(60, 4, comm, images=images)
        if compute_apart:
            trainer.compute_apart()
        before = trainer.parameters.values.tobytes()
        with pytest.raises(TrainingDiverged) as caught:
            trainer.step(0)
        messages.append(str(caught.value))
        assert trainer.parameters.values.tobytes() == before
    assert messages[0] == messages[1]
    assert "sample 9" in messages[0]


def test_large_gradients_are_summed_as_ever():
    """Of 5,000 and more: too large to be rounded by addition, but within the limit."""
    images = np.random.default_rng(0).random((NUM_SAMPLES, *SHAPE)).astype(np.float32) * 1e6
    together, apart = (trainer_of(images=images) for _ in range(2))
    apart.compute_apart()
    assert numbers_of(together, 2) == numbers_of(apart, 2)


def test_the_label_that_is_named_is_that_of_the_first_micro_batch_with_a_wrong_one():
    messages = []
    for compute_apart in (False, True):
        trainer = trainer_of(60, 4, labels=np.arange(100, 100 + NUM_SAMPLES))
        if compute_apart:
            trainer.compute_apart()
        with pytest.raises(DataError) as caught:
            trainer.step(0)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def half_as_floats(images: Array, bits: Array) -> Array:
    return images / np.float32(255) if bits[0] % 2 else images


def test_micro_batches_of_bytes_and_of_floats_mean_what_they_mean_alone():
    together, apart = (trainer_of(60, 4, augment=half_as_floats) for _ in range(2))
    apart.compute_apart()
    assert numbers_of(together) == numbers_of(apart)


@pytest.mark.parametrize("which", [0, 1])
def test_images_of_another_shape_are_refused_as_those_of_one_micro_batch(which):
    def crop(images: Array, bits: Array) -> Array:
        return images[:, :, :4] if bits[0] % 2 >= which else images

    with pytest.raises(ValueError, match=r"found shape \(4, 1, 4, 5\)"):
        trainer_of(60, 4, augment=crop).step(0)


def test_layers_are_seen_by_who_watches_them_later():
    """As the callbacks of a run do."""
    trainer, rows = trainer_of(60, 4), []
    layer = trainer.objective.network.body.layers[0]
    trainer.step(0)
    forward = layer.forward
    layer.forward = lambda x, *rest: rows.append(len(x)) or forward(x, *rest)
    trainer.step(1)
    assert rows == 15 * [4]


class OwnFeed(Feed):
    """Somebody's, who sees every micro-batch."""


@pytest.mark.parametrize(
    "arguments",
    [
        {"feed": OwnFeed},
        {"reduction": "float32"},
        {"reduction": "exact32"},
        {"audit": 1},
        {"network": Network([Linear(20_000), ReLU(), Linear(4)], SHAPE)},
    ],
)
def test_what_comes_one_by_one(arguments):
    """What others may watch; other sums; gradients that take memory."""
    assert trainer_of(**arguments).group_pass is None
