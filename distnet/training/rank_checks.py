"""What ranks compare of a run, before training and after it, so that none goes a way of its own.

They may have been given unlike arrays, networks or functions: then all raise one error. What a
user wrote and only one rank can judge is tried by `own_parts`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.base.output import warn
from distnet.data.dataset import Samples, digest
from distnet.nn.description import describe
from distnet.nn.network import Network
from distnet.nn.own_layers import is_own
from distnet.nn.parameters import Parameters
from distnet.objectives import Objective
from distnet.parallel import Communicator, agree
from distnet.training.run import Run
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer
from distnet.training.watching.history import History

FIRST = 16  # samples by which an augmentation is tried
REMEDY = "give every rank the same arrays and functions, and networks made with the same seed"


def check_numbers(comm: Communicator, parameters: Parameters) -> None:
    """Raises DisagreementError if ranks would sum unlike vectors: before there are any sums."""
    numbers = {
        "the arithmetic of the network": repr(parameters.arithmetic),
        "how many values are trained, and not frozen": parameters.values.size,
    }
    agree(comm, numbers, REMEDY)


def check_beginning(
    trainer: Trainer,
    training: Samples,
    others: Mapping[str, Samples],
    settings: Mapping[str, object],
    steps: range,
) -> None:
    """Raises DisagreementError if ranks train on unlike arrays, or in unlike ways, in `steps`.

    And ValueError for an augmentation of a user's own that makes two things of one micro-batch.
    """
    given = {
        **settings,
        "the sets to evaluate on": list(others),  # one after another, on all ranks together
        "the images and labels": digest(training),
        **{f"the set {name!r}": digest(each) for name, each in others.items()},
        **beginning_of(trainer.objective),
        **_augmentation(trainer.feed, trainer.seed),
        **rate_of(trainer, steps),
    }
    agree(trainer.comm, given, REMEDY)


def rate_of(trainer: Trainer, steps: range) -> dict[str, object]:
    """The first learning rate of some steps, for ranks to compare: a schedule itself tells nothing.

    Raises ValueError for one that counts or draws by itself: a run that is resumed asks for the
    steps that are left.
    """
    if not steps:
        return {}
    first, _, again = (repr(trainer.schedule(step)) for step in (steps[0], steps[-1], steps[0]))
    if first != again:
        raise ValueError(
            f"lr: found {first} and then {again} for step {steps[0]}, expected one learning rate, "
            "whenever it is asked for; a schedule is a function of the step alone"
        )
    return {f"the learning rate of step {steps[0]}": first}


def beginning_of(objective: Objective) -> dict[str, object]:
    """What ranks can compare of what is trained.

    The layers of its network, by their place, as files describe them; of others nobody can tell.
    """
    network, parameters = getattr(objective, "network", None), objective.parameters
    try:
        layers = describe(network)["layers"] if isinstance(network, Network) else []
    except ValueError:
        layers = []
    return {
        **{f"layer {number} of the network": each for number, each in enumerate(layers)},
        "the values that the network starts with": digest(
            [parameters.values, parameters.constants]
        ),
    }


def _augmentation(feed: Feed, seed: int) -> dict[str, object]:
    """What it makes of the first samples, if there is one: functions themselves tell nothing.

    Raises ValueError if it makes two things of them: no run could be repeated then.
    """
    if feed.augment is None:
        return {}
    first, at = np.arange(min(FIRST, len(feed.targets))), MicroBatch(seed, 0, 0, 1.0)
    once, again = (digest([np.asarray(feed.augmented(first, at))]) for _ in range(2))
    if once != again:
        raise ValueError(
            "augment: found two results for the same images and bits, expected one; draw nothing, "
            "but take what is random from `bits`, a random uint64 for each image"
        )
    return {"what `augment` makes of the first images": once}


def check_end(run: Run, history: History, statistics: Array) -> None:
    """Raises DisagreementError if the ranks have come apart; warns of averages that have not moved.

    statistics: the running averages before training.
    """
    parameters = run.trainer.parameters
    stayed = bool(parameters.batch_slots) and np.array_equal(statistics, parameters.statistics)
    if stayed and is_own(run.trainer.objective) and run.comm.rank == 0:
        warn(
            "fit: running averages have not moved, so all passes were made as in evaluation; an "
            "objective of your own hands `at` to network.forward in `gradients`"
        )
    remedy = "an optimizer, a callback or an objective of your own has to do the same on every rank"
    agree(run.comm, {"the parameters after training": history.params_sha256}, remedy)
