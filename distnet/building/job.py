"""The job that a configuration asks for: the parts, and around them a run, files and messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from distnet.building.parts import (
    dataset_on,
    num_steps,
    objective_of,
    parts_of,
    start_of,
    trainer_of,
)
from distnet.data import Dataset, Samples
from distnet.device import choose_device
from distnet.models import MODELS
from distnet.nn import Network
from distnet.nn.own_layers import is_ours
from distnet.parallel import REDUCTIONS, Communicator, agree, expect_hosts, together
from distnet.parallel.watch import Watch
from distnet.training.callbacks import EarlyStopping
from distnet.training.config import TrainConfig, defaults_of, identity, to_toml, whole_run
from distnet.training.files.directory_lock import DirectoryLock
from distnet.training.files.earlier_runs import claim, init_of
from distnet.training.files.mirrors import MIRRORS
from distnet.training.files.model_file import about
from distnet.training.files.run_directory import RunDirectory
from distnet.training.job import Job
from distnet.training.known_answer import expect_same_bits, fingerprint_of
from distnet.training.own_parts import check_own_parts
from distnet.training.rank_checks import REMEDY, beginning_of, rate_of
from distnet.training.resume import resume
from distnet.training.run import Callback, Run
from distnet.training.saving import Saving
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer
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
    _check_own(config, comm, trainer)
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


def _check_own(config: TrainConfig, comm: Communicator, trainer: Trainer) -> None:
    """Raises AgreedError for what a user wrote that would make the result depend on the ranks.

    Or on where it is resumed.
    """
    steps = range(num_steps(config, trainer.sampler.steps_per_epoch))
    together(comm, lambda: check_own_parts(trainer))
    begins = together(comm, lambda: rate_of(trainer, steps))
    if not is_ours(MODELS[config.model]):
        begins |= beginning_of(trainer.objective)
    agree(comm, begins, REMEDY)


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
        RunLog(saving.directory, config.log_every, performance.throughput, told.summary, told.card),
        TerminalReport(terminal, told.introduction(run), told.result),  # of what is written then
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
