"""Trains a network on arrays in a few lines, on any number of ranks with the same bits.

`fit` is a run without a directory: no files, no checkpoints, everything measured in memory. The
scripts in `docs/book/` call it. It checks the samples (`_checked`), arranges the parts of a run as
its settings say (`_Settings`, `_arranged`), and trains (`_trained`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from distnet.base.errors import DataError
from distnet.base.images import as_array, channels_last_hint, check_finite, large_floats_hint
from distnet.base.output import warn
from distnet.data.arrays import check_same_length, checked_samples
from distnet.data.dataset import Dataset, Samples, digest
from distnet.data.splits import split
from distnet.nn import arguments
from distnet.nn.network import Network
from distnet.nn.parameters import Parameters
from distnet.objectives import Classification, Objective
from distnet.optim import Optimizer, Schedule
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator, agree
from distnet.training.known_answer import expect_same_bits
from distnet.training.run import Callback, Run
from distnet.training.step.assembly import make_trainer
from distnet.training.step.diagnosis import TrainingDiverged
from distnet.training.step.feed import Augment, Feed
from distnet.training.step.trainer import Trainer
from distnet.training.step.updates import optimizer_for
from distnet.training.watching.history import History
from distnet.training.watching.progress import Progress
from distnet.training.watching.terminal import Terminal


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
    progress: bool = False,
    after: History | None = None,
    seed: int = 0,
    comm: Communicator | None = None,
) -> History:
    """Trains `network` in place for a number of `steps` or `epochs`; returns what was measured.

    network: trained as a classifier, or an objective of your own, see `distnet.objectives`. In
    portable arithmetic (docs/portable.md) all that takes part has to be declared portable.
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
    progress: shows how far it is, in a line on the terminal, if there is one.

    after: the history of an earlier call on the same network, from which this one goes on: with the
    next epochs, the next steps of `lr`, and the state of its optimizer. So calls of one epoch each
    give what one call gives. Without it a call begins with a new optimizer and the order of samples
    that belongs to `seed`; that an earlier call had the same order is told by a UserWarning.

    The result is the same on any number of ranks. Raises ValueError or TypeError, one line, for
    arguments that cannot be, such as both `steps` and `epochs`, and DataError for images or labels
    that do not suit the network.
    """
    comm = SerialCommunicator() if comm is None else comm
    settings = _Settings(
        steps=steps,
        epochs=epochs,
        optimizer=optimizer,
        lr=lr,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        ema=ema,
        batch_size=batch_size,
        micro_batch_size=batch_size if micro_batch_size is None else micro_batch_size,
        evaluate_every=0 if evaluate_every is None else evaluate_every,
        validation=validation,
        seed=seed,
    )
    _check_kinds(network, images, comm, evaluate_on, callbacks, augment, after)
    objective = network if isinstance(network, Objective) else Classification(network)
    samples = _checked(network, (images, labels), evaluate_on or {}, settings)
    run, history = _arranged(objective, *samples, settings, augment, after, comm)
    if comm.rank == 0:
        _hint(objective, samples[0], seed, after)
    with Terminal(comm, progress) as terminal:
        run.callbacks = [history, Progress(terminal), *callbacks]
        return _trained(run, history, may_diverge)


# What settings may be, by name: the least whole number, or what a number has to be.
WHOLE = dict(steps=0, epochs=0, batch_size=1, micro_batch_size=1, evaluate_every=0, seed=0)
AT_LEAST_0 = "a finite number >= 0", lambda x: x >= 0
PART = "a number >= 0 and < 1", lambda x: 0 <= x < 1
REAL = dict(lr=AT_LEAST_0, weight_decay=AT_LEAST_0, clip_norm=AT_LEAST_0, ema=PART, validation=PART)


@dataclass(frozen=True)
class _Settings:
    """The settings of `fit`, see there, and what follows from them."""

    steps: int | None
    epochs: int | None
    optimizer: str | Optimizer
    lr: float | Schedule
    weight_decay: float
    clip_norm: float
    ema: float
    batch_size: int
    micro_batch_size: int
    evaluate_every: int
    validation: float
    seed: int

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be, and makes NumPy's numbers Python's."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"fit: found steps {self.steps} and epochs {self.epochs}, expected one of them"
            )
        for name, minimum in WHOLE.items():
            value = getattr(self, name)
            if value is not None or name not in ("steps", "epochs"):
                object.__setattr__(self, name, arguments.whole("fit", name, value, minimum))
        for name, (expected, accepts) in REAL.items():
            if not (name == "lr" and callable(self.lr)):
                value = arguments.real("fit", name, getattr(self, name), expected, accepts)
                object.__setattr__(self, name, value)
        if not isinstance(self.optimizer, str | Optimizer):
            raise arguments.refusal(
                "fit", "optimizer", self.optimizer, "a name or what make_optimizer returns"
            )

    def num_steps(self, steps_per_epoch: int) -> int:
        """The length of this call."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch

    def schedule(self) -> Schedule:
        """The learning rate by the step."""
        return self.lr if callable(self.lr) else constant(self.lr)

    def optimizer_of(self, parameters: Parameters) -> Optimizer:
        """What updates these parameters, and averages them if it is to."""
        return optimizer_for(
            parameters,
            self.optimizer,
            ema=self.ema,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )

    def comparable(self) -> dict[str, object]:
        """Those that ranks can compare: of a schedule or an optimizer only the name, if any."""
        plain = int, float, str, type(None)
        return {name: value for name, value in vars(self).items() if isinstance(value, plain)}


def _arranged(
    objective: Objective,
    training: Samples,
    others: Mapping[str, Samples],
    settings: _Settings,
    augment: Augment | None,
    after: History | None,
    comm: Communicator,
) -> tuple[Run, History]:
    """The run, at its first step or where `after` has ended, and the history that it will fill."""
    trainer = make_trainer(
        objective,
        Feed(objective, *training, augment),
        optimizer=settings.optimizer_of(objective.parameters),
        schedule=settings.schedule(),
        batch_size=settings.batch_size,
        micro_batch_size=settings.micro_batch_size,
        seed=settings.seed,
        comm=comm,
    )
    if trainer.parameters.arithmetic.rounds:
        expect_same_bits(comm, trainer.parameters.arithmetic)
    first_step = 0 if after is None else after.num_steps
    if after is not None:
        _take_state(trainer, after)
    _agree_on(trainer, training, others, settings.comparable())
    run = Run(
        trainer,
        {name: Feed(objective, *each) for name, each in others.items()},
        total_steps=first_step + settings.num_steps(trainer.sampler.steps_per_epoch),
        evaluate_every=settings.evaluate_every,
        evaluate_first=True,
    )
    run.num_done = first_step
    return run, History(evaluations={name: [] for name in others}, optimizer=trainer.optimizer)


def _trained(run: Run, history: History, may_diverge: bool) -> History:
    """Trains to the end and leaves the network with what was evaluated last."""
    try:
        run.train()
    except TrainingDiverged as error:
        if not may_diverge:
            raise
        history.diverged = str(error)
        run.evaluate()
    history.complete(run)
    return history


def _check_kinds(
    network: object,
    images: object,
    comm: object,
    sets: object,
    callbacks: object,
    augment: object,
    after: object,
) -> None:
    """Raises TypeError, one line, for what is something else."""
    if isinstance(images, Dataset):
        raise TypeError("fit: found a data set, expected images, labels: *dataset.train")
    kinds = (
        ("network", network, isinstance(network, Network | Objective), "a Network, or Objective"),
        ("comm", comm, hasattr(comm, "allgather"), "a communicator, as distnet.run gives it"),
        ("augment", augment, augment is None or callable(augment), "a function, or None"),
        ("after", after, isinstance(after, History | None), "what an earlier call has returned"),
    )
    for name, value, is_right, expected in kinds:
        if not is_right:
            raise TypeError(f"fit: found {name} {value!r:.60}, expected {expected}")
    if sets is not None and not isinstance(sets, Mapping):
        raise TypeError(
            f"evaluate_on: found {type(sets).__name__}, expected sets by name, such as "
            '{"test": (images, labels)}'
        )
    for name, each in (sets or {}).items():
        if not isinstance(each, tuple | list) or len(each) != 2:
            kind = type(each).__name__
            raise TypeError(f"evaluate_on, {name!r:.60}: found {kind}, expected (images, labels)")
    given = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    wrong = [each for each in given if not isinstance(each, Callback)]
    if wrong or given is not callbacks:
        found = wrong[0] if wrong else callbacks
        raise TypeError(f"callbacks: found {found!r:.60}, expected a list of Callback objects")


def _checked(
    network: Network | Objective,
    training: tuple[Any, Any],
    others: Mapping[str, tuple[Any, Any]],
    settings: _Settings,
) -> tuple[Samples, dict[str, Samples]]:
    """The samples for training and the sets by name, those held out for validation first."""
    check = _door(network)
    samples, sets = check(*training), {}
    for name, each in others.items():
        try:
            sets[name] = check(*each)
        except DataError as error:
            raise DataError(f"evaluate_on, {name!r:.60}: {error}") from None
    if not settings.validation:
        return samples, sets
    samples, held_out = split(samples, settings.validation, settings.seed)
    return samples, {"valid": held_out, **sets}


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


def _agree_on(
    trainer: Trainer,
    training: Samples,
    others: Mapping[str, Samples],
    settings: Mapping[str, object],
) -> None:
    """Ranks that train on unlike arrays, or in unlike ways, would do so without a word."""
    given = {
        **settings,
        "the images and labels": digest(training),
        **{f"the set {name!r}": digest(each) for name, each in others.items()},
        "the values that the network starts with": digest(
            [trainer.parameters.values, trainer.parameters.constants]
        ),
    }
    remedy = "give every rank the same arrays, and networks made with the same seed"
    agree(trainer.comm, given, remedy)


# By the parameters that a call of `fit` has trained, its seeds.
_SEEDS: WeakKeyDictionary[Parameters, set[int]] = WeakKeyDictionary()


def _hint(objective: Objective, training: Samples, seed: int, after: History | None) -> None:
    """Warns of what is allowed and rarely meant."""
    seeds = _SEEDS.setdefault(objective.parameters, set())
    if seed in seeds and after is None:
        warn(
            f"fit: this network was trained with seed {seed} before, and begins with the same order"
            " of samples again; to go on, give after=history with what the call before returned, "
            "or another seed"
        )
    seeds.add(seed)
    if isinstance(objective, Classification):
        for text in (
            large_floats_hint(training.inputs),
            channels_last_hint(objective.network.input_shape),
        ):
            if text:
                warn(f"fit: {text}")


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
