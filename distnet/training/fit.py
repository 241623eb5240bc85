"""Trains a network on arrays in a few lines, on any number of ranks with the same bits.

`fit` puts together the parts of a training run (`trainer`, `feed`, `evaluation`) for an experiment:
no files, no checkpoints, everything measured in memory. The scripts in `docs/book/` call it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from distnet.base.arrays import Array
from distnet.nn.network import Network
from distnet.objectives import Classification, Objective
from distnet.optim import Optimizer, Schedule, make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.evaluation import evaluate
from distnet.training.feed import Augment, Feed
from distnet.training.trainer import StepResult, TrainingDiverged, make_trainer

Samples = tuple[Array, Array]  # inputs and targets
Metrics = dict[str, float]

EVALUATION_SIZE = 200  # samples of a forward pass in evaluation


@dataclass
class History:
    """What `fit` measured.

    steps: the metrics of every step on its batch, from the forward pass, before the update.
    num_updates: how many updates had been made at each evaluation; 0: the network as it started.
    evaluations: by the name of the set, the metrics at each of `num_updates`.
    diverged: why training ended early, if it did.
    params_sha256: of the final parameters, as little-endian float32.
    """

    steps: list[Metrics] = field(default_factory=list)
    num_updates: list[int] = field(default_factory=list)
    evaluations: dict[str, list[Metrics]] = field(default_factory=dict)
    diverged: str | None = None
    params_sha256: str = ""

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [step["loss"] for step in self.steps]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of every step, between 0 and 1, of a classifier."""
        return [step["accuracy"] for step in self.steps]

    def accuracy(self, name: str) -> list[float]:
        """The accuracy on set `name` at each evaluation, between 0 and 1, of a classifier."""
        return [evaluation["accuracy"] for evaluation in self.evaluations[name]]

    def add_step(self, result: StepResult) -> None:
        self.steps.append(result.metrics)


def fit(
    network: Network | Objective,
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

    network: trained as a classifier, or an objective of your own, see `distnet.objectives`.
    images: `(N, ...)` of the network's input shape, bytes (0 to 255 mean 0 to 1) or floats; labels:
    `(N,)` integers, or the targets of the objective. An epoch is a permutation of all of them, its
    last batch may be short.
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
    objective = network if isinstance(network, Objective) else Classification(network)
    trainer = make_trainer(
        objective,
        Feed(objective, images, labels, augment),
        optimizer=_optimizer(optimizer, objective, weight_decay),
        schedule=lr if callable(lr) else constant(lr),
        batch_size=batch_size,
        micro_batch_size=micro_batch_size or batch_size,
        seed=seed,
        comm=comm,
    )
    steps_per_epoch = trainer.sampler.steps_per_epoch
    num_steps = _num_steps(steps, epochs, steps_per_epoch)
    feeds = {name: Feed(objective, *samples) for name, samples in (evaluate_on or {}).items()}
    history = History(evaluations={name: [] for name in feeds})
    every = evaluate_every or steps_per_epoch
    with np.errstate(all="ignore" if may_diverge else None):
        try:
            for step in range(num_steps):
                if step % every == 0:
                    _evaluate(history, feeds, comm)
                history.add_step(trainer.step(step))
        except TrainingDiverged as error:
            if not may_diverge:
                raise
            history.diverged = str(error)
        _evaluate(history, feeds, comm)
    values = objective.parameters.values
    history.params_sha256 = hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()
    return history


def _num_steps(steps: int | None, epochs: int | None, steps_per_epoch: int) -> int:
    if (steps is None) == (epochs is None):
        raise ValueError(f"fit: found steps {steps} and epochs {epochs}, expected one of them")
    return steps if steps is not None else (epochs or 0) * steps_per_epoch


def _optimizer(optimizer: str | Optimizer, objective: Objective, weight_decay: float) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    parameters = objective.parameters
    return make_optimizer(
        optimizer,
        parameters.values.size,
        weight_decay=weight_decay,
        decayed=parameters.decays,
        segments=[(slot.start, slot.stop) for slot in parameters.slots],
    )


def _evaluate(history: History, feeds: Mapping[str, Feed], comm: Communicator) -> None:
    """Notes how good the network is now, unless that is known."""
    num_updates = len(history.steps)
    if num_updates in history.num_updates[-1:]:
        return
    history.num_updates.append(num_updates)
    for name, feed in feeds.items():
        history.evaluations[name].append(evaluate(feed, comm, EVALUATION_SIZE))
