"""What to say when a number is not finite: the layer where it first came up, or the gradient."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.sequential import Sequential
from distnet.objectives import Objective
from distnet.parallel.errors import AgreedError, NonFiniteGradient


class TrainingDiverged(AgreedError):  # noqa: N818  the condition is the name
    """A number is not finite, or too large to be summed."""


def first_bad_layer(objective: Objective, x: Array, at: MicroBatch) -> str | None:
    """The first layer of the chain whose output for input `x` is not finite; None if all are.

    Computes the forward pass of a micro-batch once more. None, too, for an objective that trains
    several networks: only it knows how they are connected.
    """
    body = objective.parameters.parts.get("")
    if not isinstance(body, Sequential):
        return None
    with np.errstate(all="ignore"):
        for name, layer in body.named_layers():
            x = layer.forward(x, at=at)
            if not np.isfinite(x).all():
                return name
    return None


def bad_sample(inputs: Array, targets: Array, samples: Array) -> str:
    """Which of `samples` has an input or a target that is not finite, in words; "" if none has."""
    for name, array in {"input": inputs, "target": targets}.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            first = int(np.argwhere(~np.isfinite(array))[0][0])
            number = array[first][~np.isfinite(array[first])].flat[0]
            return (
                f"the data hold {number} in the {name} of sample {samples[first]}, counted from 0"
            )
    return ""


def describe(
    objective: Objective, error: NonFiniteGradient, layer: str | None, untrained: Array | None
) -> str:
    """One line for `error`, whose micro-batch has its first bad number in the output of `layer`.

    untrained: the inputs of the micro-batch if no update has been made, so that no learning rate is
    to blame.
    """
    first = f"the output of {layer} is not finite, so that " if layer else ""
    remedy = "lower --lr"
    if untrained is not None:
        remedy = (
            f"no update has been made: scale the inputs, here up to {np.abs(untrained).max():.3g}, "
            "the targets, or what the network starts with"
        )
    return (
        f"{first}{_name(objective, error)} is {error.value:g} in micro-batch {error.micro_batch} "
        f"on rank {error.rank}, expected a finite number of at most {error.limit:g}; {remedy}"
    )


def _name(objective: Objective, error: NonFiniteGradient) -> str:
    if error.part == "gradient":
        return f"the gradient of {objective.parameters.name_at(error.index)}"
    sums = ["the loss", *(f"the count of {name}" for name in objective.counts)]
    if error.index < len(sums):
        return sums[error.index]
    return objective.parameters.statistic_at(error.index - len(sums))
