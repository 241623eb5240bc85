"""What is trained, on what and how, as a configuration says: data, network, objective, trainer."""

from __future__ import annotations

from collections.abc import Mapping
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
from distnet.device import Device, DeviceError, compute_on
from distnet.models import MODELS
from distnet.nn import Network
from distnet.nn.parameters import Parameters
from distnet.objectives import Classification, balanced_weights
from distnet.optim import Optimizer, Schedule, make_schedule
from distnet.parallel import Communicator, OwnAllreduce, together
from distnet.training.config import TrainConfig
from distnet.training.files.model_file import initialize
from distnet.training.options import weights_of
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Augment, Feed
from distnet.training.step.trainer import Trainer
from distnet.training.step.updates import optimizer_for


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
