"""Trains a network on arrays in a few lines, on any number of ranks with the same bits.

`fit` is a run without a directory: no files, no checkpoints, everything measured in memory. The
scripts in `docs/book/` call it. What it is given is checked (`fit_arguments`), the parts of a run
are arranged as its settings say (`_arranged`), and it trains (`_trained`); before and after that
`rank_checks` and `own_parts` find out what would make the result depend on the ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distnet.base.output import warn
from distnet.data.dataset import Samples
from distnet.nn.network import Network
from distnet.objectives import Classification, Objective
from distnet.optim import Optimizer, Schedule
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.fit_arguments import Settings, check_kinds, checked, hint
from distnet.training.known_answer import expect_same_bits
from distnet.training.own_parts import check_own_parts
from distnet.training.rank_checks import check_beginning, check_end, check_numbers
from distnet.training.run import Callback, Run
from distnet.training.step.assembly import make_trainer
from distnet.training.step.diagnosis import TrainingDiverged
from distnet.training.step.feed import Augment, Feed
from distnet.training.step.trainer import Trainer
from distnet.training.watching.history import History
from distnet.training.watching.progress import Progress
from distnet.training.watching.terminal import Terminal


def fit(
    network: Network | Objective,
    images: Any,
    labels: Any = None,
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
    optimizer: a name (see OPTIMIZERS; with `weight_decay` on weights alone) or one of your own,
    with a weight decay and limit of the gradient of its own.
    lr: the learning rate, or its course: a function of the step from 0, as `make_schedule` returns
    it. The training command's default is another for each optimizer, `OPTIMIZERS[name].lr`.
    clip_norm: a gradient that is longer is scaled down to this Euclidean norm; 0: never.
    ema: decay of an exponential moving average of the parameters, which is what is evaluated and,
    in the end, what the network has; 0: none.
    micro_batch_size: None is one micro-batch a step, so that the ranks have nothing to share out
    and BatchNorm sees the whole batch, as in the book.
    augment(images, bits): new uint8 images from those of a micro-batch and a random uint64 each.
    Targets stay as they are, masks and boxes too.
    validation: part of the samples, of every class alike, that is held out and evaluated first of
    all, as "valid"; which ones is decided by the seed.
    evaluate_on: sets of (images, labels) by name, evaluated before the first update, then every
    `evaluate_every` steps (None: every epoch) and after the last.
    callbacks: see `distnet.training.callbacks`.
    may_diverge: a loss or gradient that is not finite ends training and is noted in the history;
    otherwise it raises TrainingDiverged.
    progress: shows how far it is, in a line on the terminal, if there is one.

    after: the history of an earlier call on the same network, from which this one goes on: with the
    next epochs, the next steps of `lr`, the state of its optimizer and, unless it has ended early,
    its best evaluation. So calls of one epoch each give what one call gives; a UserWarning tells if
    the network has other parameters than the call before left it with. Without it a call begins
    with a new optimizer and the order of samples that belongs to `seed`; that an earlier call had
    the same order is told by a UserWarning.

    The result is the same on any number of ranks. Raises ValueError or TypeError, one line, for
    arguments that cannot be, such as both `steps` and `epochs`, and DataError for images or labels
    that do not suit the network.
    """
    comm = SerialCommunicator() if comm is None else comm
    settings = Settings(
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
    check_kinds(network, images, labels, comm, evaluate_on, callbacks, augment, after)
    objective = network if isinstance(network, Objective) else Classification(network)
    samples = checked(network, (images, labels), evaluate_on or {}, settings)
    run, history = _arranged(objective, *samples, settings, augment, after, comm)
    if comm.rank == 0:
        hint(objective, *samples, settings, augment, after)
    with Terminal(comm, progress) as terminal:
        run.callbacks = [history, Progress(terminal), *callbacks]
        return _trained(run, history, may_diverge)


def _arranged(
    objective: Objective,
    training: Samples,
    others: Mapping[str, Samples],
    settings: Settings,
    augment: Augment | None,
    after: History | None,
    comm: Communicator,
) -> tuple[Run, History]:
    """The run, at its first step or where `after` has ended, and the history that it will fill."""
    check_numbers(comm, objective.parameters)
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
    total_steps = first_step + settings.num_steps(trainer.sampler.steps_per_epoch)
    if after is not None:
        _take_state(trainer, after)
    steps = range(first_step, total_steps)
    check_beginning(trainer, training, others, settings.comparable(), steps)
    check_own_parts(trainer, goes_on=after is not None)
    run = Run(
        trainer,
        {name: Feed(objective, *each) for name, each in others.items()},
        total_steps=total_steps,
        evaluate_every=settings.evaluate_every,
        evaluate_first=True,
    )
    run.num_done = first_step
    goes_on = after is not None and not after.record.ended  # else it is another phase of training
    if after is not None and goes_on and list(after.evaluations) == list(others):
        run.record = after.record.with_end("")  # such as the best evaluation, for EarlyStopping
    return run, History(evaluations={name: [] for name in others}, optimizer=trainer.optimizer)


def _trained(run: Run, history: History, may_diverge: bool) -> History:
    """Trains to the end and leaves the network with what was evaluated last."""
    statistics, first_step = run.trainer.parameters.statistics.copy(), run.num_done
    try:
        run.train()
    except TrainingDiverged as error:
        if not may_diverge:
            raise
        history.diverged = str(error)
        run.evaluate()
    history.complete(run)
    if run.num_done > first_step:
        check_end(run, history, statistics)
    return history


def _take_state(trainer: Trainer, after: History) -> None:
    """The optimizer goes on as it was, and trains the parameters, not their average."""
    new, old = trainer.optimizer, after.optimizer
    shapes = [{name: x.shape for name, x in each.state.items()} for each in (new, old) if each]
    is_alike = old is not None and type(new) is type(old) and new.size == old.size
    if old is None or not is_alike or shapes[0] != shapes[1]:
        raise ValueError(
            f"fit: found after a history of {type(old).__name__}, expected one of the same network "
            f"and optimizer, {type(new).__name__}"
        )
    if trainer.parameters.sha256() != after.params_sha256 and trainer.comm.rank == 0:
        warn(
            "fit: after is the history of a call that ended with other parameters than this network"
            " has; it goes on with these, at the step and with the optimizer's state of that call"
        )
    for name, array in new.state.items():
        np.copyto(array, old.state[name])
    trainer.use_evaluated()
