"""What `fit` is given, checked once, with one line for what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.images import (
    as_array,
    channels_last_hint,
    check_finite,
    large_floats_hint,
    pixels,
)
from distnet.base.output import warn
from distnet.base.plain import plain_items
from distnet.data.arrays import check_same_length, checked_samples
from distnet.data.dataset import Dataset, Samples
from distnet.data.splits import split
from distnet.nn import BatchNorm, Layer, arguments
from distnet.nn.network import Network
from distnet.nn.own_layers import is_own
from distnet.nn.parameters import Parameters
from distnet.objectives import (
    Classification,
    Detection,
    Objective,
    RegionDetection,
    Segmentation,
    StyleTransfer,
)
from distnet.optim import Optimizer, Schedule
from distnet.optim.schedules import constant
from distnet.training.run import Callback
from distnet.training.step.updates import optimizer_for
from distnet.training.watching.history import History

# What settings may be, by name: the least whole number, or what a number has to be.
WHOLE = dict(steps=0, epochs=0, batch_size=1, micro_batch_size=1, evaluate_every=0, seed=0)
AT_LEAST_0 = "a finite number >= 0", lambda x: x >= 0
PART = "a number >= 0 and < 1", lambda x: 0 <= x < 1
LR = f"{AT_LEAST_0[0]}, or a schedule, as make_schedule returns it", AT_LEAST_0[1]
REAL = dict(lr=LR, weight_decay=AT_LEAST_0, clip_norm=AT_LEAST_0, ema=PART, validation=PART)


@dataclass(frozen=True)
class Settings:
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
        if isinstance(self.optimizer, Optimizer) and (self.weight_decay or self.clip_norm):
            raise ValueError(
                f"fit: found weight_decay {self.weight_decay} and clip_norm {self.clip_norm} beside"
                " an optimizer that was made already, expected 0; give them to make_optimizer"
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
        """The settings that ranks can compare: all but an optimizer or a schedule of your own."""
        return plain_items(vars(self))


def check_kinds(
    network: object,
    images: object,
    labels: object,
    comm: object,
    sets: object,
    callbacks: object,
    augment: object,
    after: object,
) -> None:
    """Raises TypeError, one line, for what is something else."""
    if isinstance(images, Dataset):
        raise TypeError("fit: found a data set, expected images, labels: *dataset.train")
    if isinstance(images, Samples):
        raise TypeError("fit: found images and labels in one, expected two: *dataset.train")
    if labels is None:
        raise TypeError(
            "fit: found no labels, expected fit(network, images, labels, ...), or the targets of an"
            " objective of your own in their place"
        )
    kinds = (
        ("network", network, isinstance(network, Network | Objective), "a Network, or Objective"),
        ("comm", comm, hasattr(comm, "processes"), "a communicator, as distnet.run gives it"),
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


def checked(
    network: Network | Objective,
    training: tuple[Any, Any],
    others: Mapping[str, tuple[Any, Any]],
    settings: Settings,
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
    if "valid" in sets:
        raise ValueError(
            "evaluate_on: found 'valid' beside validation, whose samples have that name, expected "
            "another one"
        )
    samples, held_out = split(samples, settings.validation, settings.seed)
    return samples, {"valid": held_out, **sets}


def _door(network: Network | Objective) -> Callable[[Any, Any], Samples]:
    """Checks samples: those of a classifier by its input shape and classes."""
    if isinstance(network, Network):
        shape, (num_classes,) = network.input_shape, network.output_shape
        return lambda images, labels: checked_samples(images, labels, shape, num_classes)
    read = pixels if _reads_pixels(network) else as_array
    return lambda inputs, targets: _samples_of_an_objective(read(inputs, "inputs"), targets)


def _reads_pixels(objective: Objective) -> bool:
    """Whether its inputs go by the one rule for pixels, see `base.images`."""
    return not is_own(objective) and not isinstance(objective, StyleTransfer)


def _samples_of_an_objective(inputs: Array, targets: Any) -> Samples:
    """Only the objective knows what targets have to be; there is one for each input."""
    targets = as_array(targets, "targets")
    check_finite(inputs, "inputs")
    check_finite(targets, "targets")
    check_same_length(inputs, targets, "targets")
    return Samples(inputs, targets)


# By the parameters that a call of `fit` has trained, its seeds.
_SEEDS: WeakKeyDictionary[Parameters, set[int]] = WeakKeyDictionary()
# Those made by a user that have trained.
_OPTIMIZERS: WeakSet[Optimizer] = WeakSet()


def hint(
    objective: Objective,
    training: Samples,
    others: Mapping[str, Samples],
    settings: Settings,
    augment: object,
    after: History | None,
) -> None:
    """Warns of what is allowed and rarely meant."""
    seed, optimizer = settings.seed, settings.optimizer
    if augment is not None and isinstance(objective, Segmentation | Detection | RegionDetection):
        warn(
            "fit: augment changes the images alone; one that moves, turns or mirrors them leaves "
            "masks and boxes where they were, so change both before fit"
        )
    if isinstance(optimizer, Optimizer):
        if optimizer in _OPTIMIZERS and after is None and optimizer.state:
            warn(
                "fit: this optimizer has trained before, and begins with what it remembers of that;"
                " make a new one, or give after=history to go on"
            )
        _OPTIMIZERS.add(optimizer)
    seeds = _SEEDS.setdefault(objective.parameters, set())
    if seed in seeds and after is None:
        warn(
            f"fit: this network was trained with seed {seed} before, and begins with the same order"
            " of samples again; to go on, give after=history with what the call before returned, "
            "or another seed"
        )
    seeds.add(seed)
    if objective.parameters.constants.size and not objective.parameters.values.size:
        warn("fit: all layers are frozen, so nothing is trained; network.freeze() trains all again")
    if settings.micro_batch_size == 1 and (names := _lonely(objective.parameters)):
        warn(
            f"fit: {', '.join(names)}: found micro-batches of 1, of which each channel is a single "
            "number, its own mean: nothing of it is left; take a larger micro_batch_size"
        )
    if _reads_pixels(objective) and (text := _hint_of_floats(training, others)):
        warn(f"fit: {text}")
    if isinstance(objective, Classification) and (
        text := channels_last_hint(objective.network.input_shape)
    ):
        warn(f"fit: {text}")


def _lonely(parameters: Parameters) -> list[str]:
    """The names of the BatchNorm layers that have one number a channel in each sample."""
    return [
        f"{part}.{name}".lstrip(".")
        for part, body in parameters.parts.items()
        if isinstance(body, Layer)
        for name, leaf in body.named_leaves()
        if isinstance(leaf, BatchNorm)
        and not leaf.running_mean.is_frozen
        and math.prod(leaf.input_shape[1:]) == 1
    ]


def _hint_of_floats(training: Samples, others: Mapping[str, Samples]) -> str:
    """One line about the first images that look like bytes, "" if none do."""
    if text := large_floats_hint(training.inputs):
        return text
    for name, each in others.items():
        if text := large_floats_hint(each.inputs):
            return f"evaluate_on, {name!r:.60}: {text}"
    return ""
