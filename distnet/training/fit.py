"""Trains a network on arrays in a few lines, on any number of ranks with the same bits.

`fit` is a run without a directory: no files, no checkpoints, everything measured in memory. The
scripts in `docs/book/` call it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from distnet.base.images import as_array, check_finite
from distnet.data.arrays import check_same_length, checked_samples
from distnet.data.dataset import Samples, digest
from distnet.data.splits import split
from distnet.nn.network import Network
from distnet.nn.parameters import Parameters
from distnet.objectives import Classification, Objective
from distnet.optim import Averaged, Optimizer, Schedule, make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator, agree
from distnet.training.feed import Augment, Feed
from distnet.training.record import Metrics
from distnet.training.run import Callback, Run
from distnet.training.trainer import StepResult, Trainer, TrainingDiverged, make_trainer


@dataclass
class History(Callback):
    """What `fit` measured.

    steps: the metrics of every step on its batch, from the forward pass, before the update.
    num_updates: how many updates had been made at each evaluation; 0: the network as it started.
    evaluations: by the name of the set, the metrics at each of `num_updates`.
    diverged: why training ended early, if it did. ended: the same for a callback that ended it.
    params_sha256: of the final parameters, as little-endian float32.
    num_steps: updates so far, those of the calls before it included, if it went on after them.
    optimizer: with its state, for a call that goes on.
    """

    steps: list[Metrics] = field(default_factory=list)
    num_updates: list[int] = field(default_factory=list)
    evaluations: dict[str, list[Metrics]] = field(default_factory=dict)
    diverged: str | None = None
    ended: str = ""
    params_sha256: str = ""
    num_steps: int = 0
    optimizer: Optimizer | None = field(default=None, repr=False, compare=False)

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

    def stepped(self, run: Run, result: StepResult) -> None:
        self.steps.append(result.metrics)

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        self.num_updates.append(run.num_done)
        for name, metrics in evaluated.items():
            self.evaluations[name].append(metrics)


def fit(
    network: Network | Objective,
    images: Any,
    labels: Any,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    optimizer: str | Optimizer = "sgd",
    lr: float | Schedule = 0.01,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    ema: float = 0.0,
    batch_size: int = 100,
    micro_batch_size: int | None = None,
    augment: Augment | None = None,
    validation: float = 0.0,
    evaluate_on: Mapping[str, tuple[Any, Any]] | None = None,
    evaluate_every: int | None = None,
    callbacks: Sequence[Callback] = (),
    may_diverge: bool = False,
    after: History | None = None,
    seed: int = 0,
    comm: Communicator | None = None,
) -> History:
    """Trains `network` in place for a number of `steps` or `epochs`; returns what was measured.

    network: trained as a classifier, or an objective of your own, see `distnet.objectives`.
    images: `(N, ...)` of the network's input shape, bytes (0 to 255 mean 0 to 1) or floats; labels:
    `(N,)` integers, or the targets of the objective. An epoch is a permutation of all of them, its
    last batch may be short.
    optimizer: a name (see OPTIMIZERS; with `weight_decay` on weights alone) or one of your own.
    clip_norm: a gradient that is longer is scaled down to this Euclidean norm; 0: never.
    ema: decay of an exponential moving average of the parameters, which is what is evaluated and,
    in the end, what the network has; 0: none.
    micro_batch_size: None is one micro-batch a step, so that the ranks have nothing to share out
    and BatchNorm sees the whole batch, as in the book.
    augment(images, bits): new uint8 images from those of a micro-batch and a random uint64 each.
    validation: part of the samples, of every class alike, that is held out and evaluated first of
    all, as "valid"; which ones is decided by the seed.
    evaluate_on: sets of (images, labels) by name, evaluated before the first update, then every
    `evaluate_every` steps (None: every epoch) and after the last.
    callbacks: see `distnet.training.callbacks`.
    may_diverge: a loss or gradient that is not finite ends training and is noted in the history;
    otherwise it raises TrainingDiverged.

    after: the history of an earlier call on the same network, from which this one goes on: with the
    next epochs, the next steps of `lr`, and the state of its optimizer. So calls of one epoch each
    give what one call gives. Without it a call begins with a new optimizer and the order of samples
    that belongs to `seed`; that an earlier call had the same order is told by a UserWarning.

    The result is the same on any number of ranks. Raises ValueError unless exactly one of `steps`
    and `epochs` is given, and DataError for images or labels that do not suit the network.
    """
    comm = SerialCommunicator() if comm is None else comm
    objective = network if isinstance(network, Objective) else Classification(network)
    check = _door(network)
    _check_kinds(evaluate_on, callbacks)
    training = check(images, labels)
    samples = {name: check(*each) for name, each in (evaluate_on or {}).items()}
    if validation:
        training, held_out = split(training, validation, seed)
        samples = {"valid": held_out, **samples}
    settings = {"weight_decay": weight_decay, "clip_norm": clip_norm}
    trainer = make_trainer(
        objective,
        Feed(objective, *training, augment),
        optimizer=_optimizer(optimizer, objective, settings, ema),
        schedule=lr if callable(lr) else constant(lr),
        batch_size=batch_size,
        micro_batch_size=micro_batch_size or batch_size,
        seed=seed,
        comm=comm,
    )
    sets = {name: Feed(objective, *each) for name, each in samples.items()}
    first_step = 0 if after is None else after.num_steps
    if after is not None:
        _take_state(trainer, after)
    numbers: dict[str, object] = {"steps": steps, "epochs": epochs, "seed": seed, **settings}
    numbers |= {"batch_size": batch_size, "micro_batch_size": micro_batch_size}
    numbers |= {"optimizer": optimizer, "lr": lr}
    _agree_on(trainer, training, samples, numbers)
    if comm.rank == 0:
        _note_order(objective.parameters, seed, after)
    history = History(evaluations={name: [] for name in sets}, optimizer=trainer.optimizer)
    run = Run(
        trainer,
        sets,
        total_steps=first_step + _num_steps(steps, epochs, trainer.sampler.steps_per_epoch),
        evaluate_every=evaluate_every or 0,
        evaluate_first=True,
        callbacks=[history, *callbacks],
    )
    run.num_done = first_step
    try:
        run.train()
    except TrainingDiverged as error:
        if not may_diverge:
            raise
        history.diverged = str(error)
        run.evaluate()
    history.ended, history.num_steps = run.record.ended, run.num_done
    trainer.use_evaluated()
    history.params_sha256 = objective.parameters.sha256()
    return history


def _check_kinds(sets: object, callbacks: object) -> None:
    if sets is not None and not isinstance(sets, Mapping):
        raise TypeError(
            f"evaluate_on: found {type(sets).__name__}, expected sets by name, such as "
            '{"test": (images, labels)}'
        )
    given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    wrong = [each for each in given if not isinstance(each, Callback)]
    if wrong or given is not callbacks:
        found = wrong[0] if wrong else callbacks
        raise TypeError(f"callbacks: found {found!r:.60}, expected a list of Callback objects")


def _agree_on(
    trainer: Trainer,
    training: Samples,
    others: Mapping[str, Samples],
    settings: Mapping[str, object],
) -> None:
    """Ranks that train on unlike arrays, or in unlike ways, would do so without a word."""
    plain = (int, float, str, type(None))
    given = {
        **{name: value for name, value in settings.items() if isinstance(value, plain)},
        "the images and labels": digest(training),
        **{f"the set {name!r}": digest(each) for name, each in others.items()},
        "the values that the network starts with": digest(
            [trainer.parameters.values, trainer.parameters.constants]
        ),
    }
    remedy = "give every rank the same arrays, and networks made with the same seed"
    agree(trainer.comm, given, remedy)


def _door(network: Network | Objective) -> Callable[[Any, Any], Samples]:
    """Checks samples: those of a classifier by its input shape and classes."""
    if isinstance(network, Network):
        shape, (num_classes,) = network.input_shape, network.output_shape
        return lambda images, labels: checked_samples(images, labels, shape, num_classes)
    return _targets_of_an_objective


def _targets_of_an_objective(inputs: Any, targets: Any) -> Samples:
    """Only the objective knows what they have to be; there is one for each input."""
    inputs, targets = as_array(inputs, "inputs"), as_array(targets, "targets")
    check_finite(inputs, "inputs")
    check_finite(targets, "targets")
    check_same_length(inputs, targets, "targets")
    return Samples(inputs, targets)


def _num_steps(steps: int | None, epochs: int | None, steps_per_epoch: int) -> int:
    if (steps is None) == (epochs is None):
        raise ValueError(f"fit: found steps {steps} and epochs {epochs}, expected one of them")
    length = steps if steps is not None else epochs
    if not isinstance(length, int | np.integer) or isinstance(length, bool) or length < 0:
        raise ValueError(
            f"fit: found a length of {length!r:.40}, expected a whole number from 0 on"
        )
    return steps if steps is not None else (epochs or 0) * steps_per_epoch


# By the parameters that a call of `fit` has trained, its seeds.
_SEEDS: WeakKeyDictionary[Parameters, set[int]] = WeakKeyDictionary()


def _note_order(parameters: Parameters, seed: int, after: History | None) -> None:
    """Warns if an earlier call on the same network has seen its samples in the same order."""
    seeds = _SEEDS.setdefault(parameters, set())
    if seed in seeds and after is None:
        warnings.warn(
            f"fit: this network was trained with seed {seed} before, and begins with the same order"
            " of samples again; to go on, give after=history with what the call before returned, "
            "or another seed",
            stacklevel=3,
        )
    seeds.add(seed)


def _take_state(trainer: Trainer, after: History) -> None:
    """The optimizer goes on as it was, and trains the parameters, not their average."""
    new, old = trainer.optimizer, after.optimizer
    shapes = [{name: x.shape for name, x in each.state.items()} for each in (new, old) if each]
    if old is None or type(new) is not type(old) or shapes[0] != shapes[1]:
        raise ValueError(
            f"fit: found after a history of {type(old).__name__}, expected one of the same network "
            f"and optimizer, {type(new).__name__}"
        )
    for name, array in new.state.items():
        np.copyto(array, old.state[name])
    trainer.use_evaluated()


def _optimizer(
    optimizer: str | Optimizer, objective: Objective, settings: Mapping[str, float], ema: float
) -> Optimizer:
    parameters = objective.parameters
    if ema:
        return Averaged(_optimizer(optimizer, objective, settings, 0), ema, parameters.values)
    if isinstance(optimizer, Optimizer):
        return optimizer
    return make_optimizer(
        optimizer,
        parameters.values.size,
        dtype=parameters.dtype,
        decayed=parameters.decays,
        segments=[(slot.start, slot.stop) for slot in parameters.slots],
        **settings,
    )
