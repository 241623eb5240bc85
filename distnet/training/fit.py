"""Trains a network on arrays in a few lines, on any number of ranks with the same bits.

`fit` puts together the parts of a training run (`trainer`, `feed`, `evaluation`) for an experiment:
no files, no checkpoints, everything measured in memory. The scripts in `docs/book/` call it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.data.sampler import Sampler
from distnet.nn.network import Network
from distnet.optim import Optimizer, Schedule, make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, Reducer, SerialCommunicator, make_reducer
from distnet.training.evaluation import Evaluation, evaluate
from distnet.training.feed import Feed
from distnet.training.trainer import TALLY, StepResult, Trainer, TrainingDiverged

Samples = tuple[Array, Array]  # images and labels
Augment = Callable[[Array, Array], Array]

EVALUATION_SIZE = 200  # samples of a forward pass in evaluation


@dataclass
class History:
    """What `fit` measured.

    losses, accuracies: of every step on its batch, from the forward pass, before the update.
    num_updates: how many updates had been made at each evaluation; 0: the network as it started.
    evaluations: by the name of the set, one for each of `num_updates`.
    diverged: why training ended early, if it did.
    params_sha256: of the final parameters, as little-endian float32.
    """

    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    num_updates: list[int] = field(default_factory=list)
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)
    diverged: str | None = None
    params_sha256: str = ""

    def accuracy(self, name: str) -> list[float]:
        """The accuracy on set `name` at each evaluation, between 0 and 1."""
        return [evaluation.accuracy for evaluation in self.evaluations[name]]

    def add_step(self, result: StepResult) -> None:
        self.losses.append(result.loss)
        self.accuracies.append(result.num_correct / result.num_samples)


class ArrayFeed(Feed):
    """Images uint8, scaled to [0, 1], or floats as they are; any function of them to augment."""

    def __init__(
        self, network: Network, images: Array, labels: Array, augment: Augment | None = None
    ) -> None:
        super().__init__(network, images, labels)
        self.augment = augment
        if images.dtype != np.uint8:
            self._scale = np.array(1, network.dtype)

    def training(self, samples: Array, train: MicroBatch) -> tuple[Array, Array]:
        if self.augment is None:
            return super().training(samples, train)
        bits = self._words.draw(train, len(samples))
        return self._pixels(self.augment(self.images[samples], bits)), self.labels[samples]


def fit(
    network: Network,
    images: Array,
    labels: Array,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer: str | Optimizer = "sgd",
    lr: float | Schedule = 0.01,
    weight_decay: float = 0.0,
    batch_size: int = 100,
    micro_batch_size: int | None = None,
    augment: Augment | None = None,
    evaluate_on: Mapping[str, Samples] | None = None,
    evaluate_every: int | None = None,
    may_diverge: bool = False,
    seed: int = 0,
    comm: Communicator | None = None,
) -> History:
    """Trains `network` in place for a number of `steps` or `epochs`; returns what was measured.

    images: `(N, ...)` of the network's input shape, uint8 (scaled to [0, 1]) or floats; labels:
    `(N,)` integers. An epoch is a permutation of all of them, its last batch may be short.
    optimizer: a name (see OPTIMIZERS; with `weight_decay` on weights alone) or one of your own.
    micro_batch_size: None is one micro-batch a step, so that the ranks have nothing to share out
    and BatchNorm sees the whole batch, as in the book.
    augment(images, bits): new uint8 images from those of a micro-batch and a random uint64 each.
    evaluate_on: sets of (images, labels) by name, evaluated before the first update, then every
    `evaluate_every` steps (None: every epoch) and after the last.
    may_diverge: a loss or gradient that is not finite ends training and is noted in the history;
    otherwise it raises TrainingDiverged.

    The result is the same on any number of ranks. Raises ValueError unless exactly one of `steps`
    and `epochs` is given.
    """
    comm = SerialCommunicator() if comm is None else comm
    sampler = Sampler(len(labels), batch_size, micro_batch_size or batch_size, seed)
    num_steps = _num_steps(steps, epochs, sampler)
    trainer = Trainer(
        network=network,
        optimizer=_optimizer(optimizer, network, weight_decay),
        schedule=lr if callable(lr) else constant(lr),
        sampler=sampler,
        feed=ArrayFeed(network, images, labels, augment),
        reducer=_reducer(network, sampler, comm),
        comm=comm,
        seed=seed,
    )
    feeds = {name: ArrayFeed(network, *samples) for name, samples in (evaluate_on or {}).items()}
    history = History(evaluations={name: [] for name in feeds})
    every = evaluate_every or sampler.steps_per_epoch
    with np.errstate(all="ignore" if may_diverge else None):
        try:
            for step in range(num_steps):
                if step % every == 0:
                    _evaluate(history, network, feeds, comm)
                history.add_step(trainer.step(step))
        except TrainingDiverged as error:
            if not may_diverge:
                raise
            history.diverged = str(error)
        _evaluate(history, network, feeds, comm)
    history.params_sha256 = hashlib.sha256(network.values.astype("<f4").tobytes()).hexdigest()
    return history


def _num_steps(steps: int | None, epochs: int | None, sampler: Sampler) -> int:
    if (steps is None) == (epochs is None):
        raise ValueError(f"fit: found steps {steps} and epochs {epochs}, expected one of them")
    return steps if steps is not None else (epochs or 0) * sampler.steps_per_epoch


def _optimizer(optimizer: str | Optimizer, network: Network, weight_decay: float) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    return make_optimizer(
        optimizer,
        network.values.size,
        weight_decay=weight_decay,
        decayed=network.decayed,
        segments=[(slot.start, slot.stop) for slot in network.slots],
    )


def _reducer(network: Network, sampler: Sampler, comm: Communicator) -> Reducer:
    tally_size = TALLY + network.statistics.size
    num_contributions = sampler.max_micro_batches
    return make_reducer(
        "exact", comm, network.grads, tally_size, num_contributions=num_contributions
    )


def _evaluate(
    history: History, network: Network, feeds: Mapping[str, Feed], comm: Communicator
) -> None:
    """Notes how good the network is now, unless that is known."""
    num_updates = len(history.losses)
    if num_updates in history.num_updates[-1:]:
        return
    history.num_updates.append(num_updates)
    for name, feed in feeds.items():
        history.evaluations[name].append(evaluate(network, feed, comm, EVALUATION_SIZE))
