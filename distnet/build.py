"""From a configuration to the parts of a run: the one place where they are put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from distnet.base.arrays import Shape, ceil_divide, format_shape
from distnet.data import (
    DATASETS,
    DataError,
    Dataset,
    Samples,
    augmentation,
    default_cache_dir,
    load_dataset,
    split,
    with_test,
)
from distnet.data.cache import checked_files, trust
from distnet.device import Device, DeviceError, choose_device, compute_on
from distnet.models import MODELS
from distnet.nn import Network
from distnet.nn.parameters import Parameters
from distnet.objectives import Classification, balanced_weights
from distnet.optim import Optimizer, Schedule, make_schedule
from distnet.parallel import (
    REDUCTIONS,
    Communicator,
    OwnAllreduce,
    agree,
    expect_hosts,
    together,
)
from distnet.parallel.watch import Watch
from distnet.training.callbacks import EarlyStopping
from distnet.training.config import TrainConfig, defaults_of, identity, to_toml, whole_run
from distnet.training.files.directory_lock import DirectoryLock
from distnet.training.files.earlier_runs import claim, init_of
from distnet.training.files.mirrors import MIRRORS
from distnet.training.files.model_file import about, initialize
from distnet.training.files.run_directory import RunDirectory
from distnet.training.job import Job
from distnet.training.known_answer import expect_same_bits, fingerprint_of
from distnet.training.options import weights_of
from distnet.training.resume import resume
from distnet.training.run import Callback, Run
from distnet.training.saving import Saving
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Augment, Feed
from distnet.training.step.trainer import Trainer
from distnet.training.step.updates import optimizer_for
from distnet.training.watching.allreduce_report import AllreduceReport
from distnet.training.watching.particulars import Particulars
from distnet.training.watching.performance import Performance
from distnet.training.watching.profile import Profile
from distnet.training.watching.progress import Progress
from distnet.training.watching.report import RunLog, TerminalReport
from distnet.training.watching.step_hashes import StepHashes
from distnet.training.watching.terminal import Terminal
from distnet.training.watching.timeline import TimelineFile, check_file


def job_of(
    config: TrainConfig,
    comm: Communicator,
    environ: Mapping[str, str],
    wants_stop: Callable[[], bool],
) -> Job:
    """The job that `config` asks for, on all ranks, ready to train.

    Raises AgreedError on all ranks for what cannot be, or is not the same everywhere.
    """
    agree(comm, asdict(config))
    if config.expect_hosts:
        expect_hosts(comm, config.expect_hosts)
    device = together(comm, lambda: choose_device(config.device, comm.node.rank))
    fingerprint = fingerprint_of(device)
    if REDUCTIONS[config.reduction].exact:
        expect_same_bits(comm, config.numbers, device)
    dataset = dataset_on(comm, config, environ)
    decisive = identity(config) | {"data_sha256": dataset.sha256}
    agree(comm, decisive)
    training, evaluated = together(comm, lambda: parts_of(config, dataset))
    objective = together(comm, lambda: objective_of(config, dataset, training, device))
    started = together(comm, lambda: start_of(config, objective.network))
    if started:
        agree(comm, {"the weights of --init": objective.parameters.sha256()})
    trainer = trainer_of(config, objective, training, comm)
    has_line = config.progress and environ.get("TERM") != "dumb"
    terminal = Terminal(comm, has_line, config.quiet)
    together(comm, lambda: check_timeline(config, comm))
    with ExitStack() as undo:
        directory = directory_of(config, dataset, comm, terminal.warn, undo)
        model = together(comm, lambda: about_model(objective.network, dataset))
        saving = Saving(directory, decisive, fingerprint, model)
        run = run_of(config, trainer, evaluated, saving, wants_stop)
        if started:
            terminal.say(f"distnet: {started}")
        _go_on(run, config, saving, terminal)
        config = _as_it_began(config, directory.path, terminal)
        run.callbacks = callbacks_of(config, dataset, run, saving, terminal)
        watch = watch_of(config, comm, directory)
        undo.pop_all()
        return Job(run, saving, terminal, watch, to_toml(whole_run(config)))


def dataset_on(comm: Communicator, config: TrainConfig, environ: Mapping[str, str]) -> Dataset:
    """The data set on all ranks; raises AgreedError.

    What a host's ranks share one of them checks before the others map it.
    """
    dataset: Dataset | None = None
    if config.data in DATASETS and DATASETS[config.data].shares and not config.data_dir:
        is_first = comm.node.rank == 0
        dataset = together(comm, lambda: dataset_of(config, environ) if is_first else None)
        checked = checked_files() if is_first else []
        for host, files in comm.allgather((comm.node.name, checked)):
            if host == comm.node.name:
                trust(files)
    return together(comm, lambda: dataset or dataset_of(config, environ))


def dataset_of(config: TrainConfig, environ: Mapping[str, str]) -> Dataset:
    """The data set that the configuration names, with test data; raises DataError."""
    data_dir = Path(config.data_dir) if config.data_dir else None
    dataset = load_dataset(config.data, data_dir, default_cache_dir(environ))
    if dataset.num_classes < 2:
        hint = "; the folders of the classes have to lie directly in it" if dataset.pictures else ""
        raise DataError(
            f"{config.data_dir or config.data}: found one class, {dataset.classes[0]!r:.60}, "
            f"expected at least two{hint}"
        )
    return with_test(dataset)


def parts_of(config: TrainConfig, dataset: Dataset) -> tuple[Samples, dict[str, Samples]]:
    """The samples for training, and those to evaluate on; by the first of these is chosen."""
    if not config.validation:
        return dataset.train, {"test": dataset.test}
    training, held_out = split(dataset.train, config.validation, config.seed)
    return training, {"valid": held_out, "test": dataset.test}


def network_of(config: TrainConfig, dataset: Dataset) -> Network:
    """The network that `--model` names, for the images and classes of the data set.

    Raises ValueError if the images are too small for it, or a layer may not take part in the
    arithmetic.
    """
    maker, shape, classes = MODELS[config.model], dataset.input_shape, dataset.num_classes
    arithmetic, seed = config.numbers, config.seed
    try:
        if arithmetic.rounds:  # which decides how values start
            network = maker(shape, classes, seed=None, **config.settings("model"))
            network.compute_in(arithmetic, seed=seed)
        else:
            network = maker(shape, classes, seed=seed, **config.settings("model"))
            if arithmetic.stores:
                network.compute_in(arithmetic)
    except ValueError as error:
        images = format_shape(shape)
        raise ValueError(f"--model {config.model} for images of {images}: {error}") from error
    network.classes = dataset.classes
    _freeze(network, config.freeze)
    return network


def _freeze(network: Network, names: str) -> None:
    """What `--freeze` says; raises ValueError."""
    if not names:
        return
    try:
        network.freeze(*(name.strip() for name in names.split(",")))
    except ValueError as error:
        raise ValueError(f"--freeze {names}: {error}") from error
    if not network.parameters.values.size:
        raise ValueError(f"--freeze {names}: found nothing that is left to be trained")


def objective_of(
    config: TrainConfig, dataset: Dataset, training: Samples, device: Device | None = None
) -> Classification:
    """What is trained for, and the network, on a device or the CPU; raises ValueError."""
    weights: Any = None
    if config.class_weights == "balanced":
        weights = balanced_weights(training.targets, dataset.num_classes)
    elif config.class_weights:
        weights = weights_of(config.class_weights)
        if len(weights) != dataset.num_classes:
            raise ValueError(
                f"--class-weights: found {len(weights)} numbers, expected {dataset.num_classes}, "
                f"one for each class of {dataset.name}"
            )
    network = network_of(config, dataset)
    if device is not None:
        try:
            compute_on(network, device)
        except DeviceError as error:
            raise ValueError(f"--model {config.model} on a device: {error}") from None
    return Classification(network, label_smoothing=config.label_smoothing, class_weights=weights)


def start_of(config: TrainConfig, network: Network) -> str:
    """Takes the weights that `--init` names, unless a checkpoint has all; a line that says so."""
    if not config.init or config.resume:
        return ""
    return initialize(network, config.init)


def trainer_of(
    config: TrainConfig, objective: Classification, training: Samples, comm: Communicator
) -> Trainer:
    """What makes the steps."""
    steps_per_epoch = ceil_divide(len(training.targets), config.batch_size)
    augment = together(comm, lambda: augment_of(config, training.inputs.shape[1:]))
    schedule = together(comm, lambda: schedule_of(config, steps_per_epoch))
    return make_trainer(
        objective,
        Feed(objective, *training, augment),
        optimizer=optimizer_of(config, objective.parameters, comm),
        schedule=schedule,
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=config.seed,
        comm=comm,
        reduction=config.reduction,
        exchange=own_allreduce_of(config, comm) or config.exchange,
        bucket_bytes=config.bucket_bytes,
        audit=config.audit,
        local=config.local,
    )


def own_allreduce_of(config: TrainConfig, comm: Communicator) -> OwnAllreduce | None:
    """The function that `--allreduce` names, if it does."""
    if not config.allreduce:
        return None
    return together(comm, lambda: OwnAllreduce.named(config.allreduce))


def augment_of(config: TrainConfig, shape: Shape) -> Augment | None:
    """What is done to training inputs of that shape; nothing, no shift either, to no images.

    Raises ValueError for what these inputs do not allow.
    """
    sizes = {"--augment-shift": config.augment_shift, "--augment-cutout": config.augment_cutout}
    if len(shape) != 3:
        asked = (
            config.augment_rotation,
            config.augment_scale,
            config.augment_flip,
            config.augment_brightness,
            config.augment_cutout,
        )
        if any(asked):
            raise ValueError(f"augmentation: found inputs of shape {shape}, expected images")
        return None
    for flag, size in sizes.items():
        if size > max(shape[1:]):
            raise ValueError(f"{flag}: found {size}, expected at most {max(shape[1:])} pixels")
    return augmentation(
        shift=config.augment_shift,
        rotation=config.augment_rotation,
        scale=config.augment_scale,
        flip=config.augment_flip,
        brightness=config.augment_brightness,
        cutout=config.augment_cutout,
    )


def optimizer_of(config: TrainConfig, parameters: Parameters, comm: Communicator) -> Optimizer:
    """The optimizer that `--optimizer` names, with an average of what it does if there is to be."""
    return optimizer_for(
        parameters,
        config.optimizer,
        ema=config.ema,
        sharing=comm if config.shard_optimizer else None,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        **config.settings("optimizer"),
    )


def schedule_of(config: TrainConfig, steps_per_epoch: int) -> Schedule:
    """The course of the learning rate; raises ValueError for milestones that do not rise."""
    return make_schedule(
        config.schedule,
        config.lr,
        num_steps(config, steps_per_epoch),
        arithmetic=config.numbers,
        **config.settings("schedule"),
    )


def num_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """The length of the whole run, to which schedules refer."""
    return config.steps or config.epochs * steps_per_epoch


def default_out(config: TrainConfig, dataset: Dataset) -> str:
    """A name for the directory that tells runs apart."""
    return f"runs/{config.model}-{dataset.name}-seed{config.seed}"


def directory_of(
    config: TrainConfig,
    dataset: Dataset,
    comm: Communicator,
    warn: Callable[[str], None],
    undo: ExitStack,
) -> RunDirectory:
    """Where results go, locked for this job: `--out`, or a name that tells runs apart.

    Rank 0, which writes, looks what is there, and tells the others. `undo` gives the lock back.
    """

    def lock(path: Path) -> DirectoryLock:
        return DirectoryLock(path, comm.processes, comm.processes[comm.rank])

    def on_rank_0() -> DirectoryLock | None:
        if comm.rank:
            return None
        default = default_out(config, dataset)
        held = claim(config.out, default, config.resume, overwrite=config.overwrite, lock=lock)
        undo.callback(held.release)
        return held

    held = together(comm, on_rank_0)
    path = comm.allgather(held and held.directory)[0]
    mirrors = [name for name in MIRRORS if getattr(config, name)]
    lock_of_path = held or lock(path)
    return RunDirectory(path, config.keep, comm=comm, warn=warn, lock=lock_of_path, mirrors=mirrors)


def check_timeline(config: TrainConfig, comm: Communicator) -> None:
    """Rank 0, which writes it, looks whether it can; raises OSError."""
    if config.timeline and comm.rank == 0:
        check_file(Path(config.timeline), config.out, overwrite=config.overwrite)


def about_model(network: Network, dataset: Dataset) -> dict[str, str]:
    """What checkpoints say of the network, and of the data that it was trained on."""
    data = {"name": dataset.name, "sha256": dataset.sha256}
    if dataset.pictures:
        data["pictures"] = dataset.pictures
    return about(network, dataset.classes, **data)


def run_of(
    config: TrainConfig,
    trainer: Trainer,
    evaluated: Mapping[str, Samples],
    saving: Saving,
    wants_stop: Callable[[], bool],
) -> Run:
    """The run at its first step, without callbacks."""
    return Run(
        trainer,
        {name: Feed(trainer.objective, *each) for name, each in evaluated.items()},
        total_steps=num_steps(config, trainer.sampler.steps_per_epoch),
        evaluation_size=config.micro_batch_size,
        verify_every=config.verify_every,
        checkpoint_every=config.checkpoint_every,
        saves=saving,
        stop_at=config.stop_at,
        wants_stop=wants_stop,
    )


def watch_of(config: TrainConfig, comm: Communicator, directory: RunDirectory) -> Watch:
    """Who keeps the others waiting: looked for where somebody asked, or ranks may be lost."""
    stall_ends = config.stall_action == "end"
    watch = Watch(comm, directory.path / "heartbeats", config.stall_timeout, stall_ends=stall_ends)
    if comm.survives_losses or config.stall_timeout:
        together(comm, watch.start)
    return watch


def callbacks_of(
    config: TrainConfig, dataset: Dataset, run: Run, saving: Saving, terminal: Terminal
) -> list[Callback]:
    """What a run of the command tells, and to whom; `Particulars` has the words."""
    performance = Performance(balances=config.balance)
    told = Particulars(config, dataset, saving)
    callbacks: list[Callback] = [
        performance,
        Progress(terminal),
        TerminalReport(terminal, told.introduction(run), told.result),
        RunLog(saving.directory, config.log_every, performance.throughput, told.summary, told.card),
    ]
    if config.hash_every:
        callbacks.append(StepHashes(config.hash_every, saving.directory.log))
    if config.patience:
        callbacks.append(EarlyStopping(config.patience))
    if config.profile:
        callbacks.append(Profile(terminal.say))
    if config.allreduce:
        callbacks.append(AllreduceReport(config.allreduce, terminal.say, saving.directory.log))
    if config.timeline:
        callbacks.append(TimelineFile(Path(config.timeline), terminal.warn))
    return callbacks


def _go_on(run: Run, config: TrainConfig, saving: Saving, terminal: Terminal) -> None:
    """Takes the state to begin with, and moves away what is not of this run's past."""
    directory = saving.directory
    if config.resume:
        own, defaults = saving.snapshot(run), defaults_of(config)
        for warning in resume(run, config.resume, directory.checkpoints, own, defaults):
            terminal.warn(warning)
        if 0 < config.stop_at < run.num_done:
            terminal.warn(
                f"--stop-at {config.stop_at}: the run is at step {run.num_done} already and goes on"
                " to its end"
            )
    if config.overwrite:
        together(run.comm, directory.remove_earlier_run)
    aside = together(run.comm, partial(directory.set_aside, run.num_done))
    if aside:
        terminal.say(f"distnet: what an earlier run has left after this step is now in {aside}")
    if not run.trainer.reducer.exact:
        terminal.warn(f"reduction {config.reduction}: the result depends on the number of ranks")


def _as_it_began(config: TrainConfig, directory: Path, terminal: Terminal) -> TrainConfig:
    """The options of the whole run, of which another `--init` may be given when it goes on."""
    if not config.resume or (began := init_of(directory, config.resume)) is None:
        return config
    if config.init and os.path.abspath(config.init) != began:
        terminal.warn(
            f"--init {config.init}: not taken, as the run goes on from its checkpoint; it began "
            + (f"from the weights in {began}" if began else "from scratch")
        )
    return replace(config, init=began)
