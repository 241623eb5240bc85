"""`python -m distnet.train`: trains a network of the book, in one process or on ranks of mpirun.

The composition root: builds the parts from the configuration, hands them to the run, returns its
exit code: 0 done, 2 wrong usage or input, 74 computed but not (all) written, 75 stopped early after
a checkpoint.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from distnet.base.arrays import ceil_divide
from distnet.data import Dataset, default_cache_dir, load_dataset
from distnet.models import MODELS
from distnet.nn import Network
from distnet.nn.parameters import Parameters
from distnet.objectives import Classification
from distnet.optim import Optimizer, make_optimizer, make_schedule
from distnet.parallel import REDUCTIONS, Communicator, agree, run_command, together
from distnet.training.config import TrainConfig, identity, parse
from distnet.training.elastic import survive
from distnet.training.feed import Feed, shifts
from distnet.training.fingerprint import REMEDY, numerics_fingerprint, one_blas_thread
from distnet.training.run import Run
from distnet.training.signals import StopSignals
from distnet.training.trainer import Trainer, make_trainer


def train(comm: Communicator) -> int:
    """The command: everything between the flags and the exit code."""
    with StopSignals() as signals, one_blas_thread():
        return survive(comm, lambda: start(comm, signals))


def start(comm: Communicator, signals: StopSignals) -> Run:
    """The run that the flags ask for, ready to train."""
    config = together(comm, lambda: parse(sys.argv[1:]))
    agree(comm, asdict(config))
    fingerprint = numerics_fingerprint()
    if REDUCTIONS[config.reduction].exact:
        agree(comm, fingerprint, REMEDY)
    dataset = together(comm, lambda: load(config))
    decisive = identity(config) | {"data_sha256": dataset.sha256}
    agree(comm, decisive)
    trainer = build_trainer(config, dataset, comm)
    run = Run(
        config,
        trainer,
        Feed(trainer.objective, *dataset.test),
        total_steps=num_steps(config, trainer.sampler.steps_per_epoch),
        identity=decisive,
        fingerprint=fingerprint,
        signals=signals,
    )
    run.start()
    return run


def load(config: TrainConfig) -> Dataset:
    """The data set that the configuration names; raises DataError."""
    data_dir = Path(config.data_dir) if config.data_dir else None
    cache_dir = default_cache_dir(os.environ)
    return load_dataset(config.data, data_dir, cache_dir)


def build_trainer(config: TrainConfig, dataset: Dataset, comm: Communicator) -> Trainer:
    """The parts of a run, put together."""
    objective = Classification(together(comm, lambda: build_network(config, dataset)))
    steps_per_epoch = ceil_divide(len(dataset.train.targets), config.batch_size)
    return make_trainer(
        objective,
        Feed(objective, *dataset.train, shifts(config.augment_shift)),
        optimizer=build_optimizer(config, objective.parameters),
        schedule=make_schedule(
            config.schedule,
            config.lr,
            num_steps(config, steps_per_epoch),
            **config.settings("schedule"),
        ),
        batch_size=config.batch_size,
        micro_batch_size=config.micro_batch_size,
        seed=config.seed,
        comm=comm,
        reduction=config.reduction,
        exchange=config.exchange,
        bucket_bytes=config.bucket_bytes,
    )


def num_steps(config: TrainConfig, steps_per_epoch: int) -> int:
    """The length of the whole run, to which schedules refer."""
    return config.steps or config.epochs * steps_per_epoch


def build_network(config: TrainConfig, dataset: Dataset) -> Network:
    """The network that `--model` names, for the images and classes of the data set.

    Raises ValueError if the images are too small for it.
    """
    maker, shape, classes = MODELS[config.model], dataset.input_shape, dataset.num_classes
    try:
        return maker(shape, classes, seed=config.seed, **config.settings("model"))
    except ValueError as error:
        size = " x ".join(map(str, shape))
        raise ValueError(f"--model {config.model} for images of {size}: {error}") from error


def build_optimizer(config: TrainConfig, parameters: Parameters) -> Optimizer:
    """The optimizer that `--optimizer` names."""
    return make_optimizer(
        config.optimizer,
        parameters.values.size,
        weight_decay=config.weight_decay,
        decayed=parameters.decays,
        clip_norm=config.clip_norm,
        segments=[(slot.start, slot.stop) for slot in parameters.slots],
        **config.settings("optimizer"),
    )


if __name__ == "__main__":
    sys.exit(run_command(train, os.environ))
