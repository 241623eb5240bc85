"""What to say when a number is not finite: the layer where it first came up, or the gradient."""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.network import Network
from distnet.parallel.errors import NonFiniteGradient


def first_bad_layer(network: Network, x: Array, train: MicroBatch) -> str | None:
    """The first layer of the chain whose output for input `x` is not finite; None if all are.

    Computes the forward pass of a micro-batch once more.
    """
    with np.errstate(all="ignore"):
        for name, layer in network.body.named_layers():
            x = layer.forward(x, at=train)
            if not np.isfinite(x).all():
                return name
    return None


def describe(network: Network, error: NonFiniteGradient, layer: str | None) -> str:
    """One line for `error`, whose micro-batch has its first bad number in the output of `layer`."""
    first = f"the output of {layer} is not finite, so that " if layer else ""
    return (
        f"{first}{_name(network, error)} is {error.value:g} in micro-batch {error.micro_batch} on "
        f"rank {error.rank}, expected a finite number of at most {error.limit:g}; lower --lr"
    )


def bad_array(arrays: dict[str, Array]) -> str | None:
    """The name of the first of `arrays` with a number that is not finite; None if all are."""
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def _name(network: Network, error: NonFiniteGradient) -> str:
    if error.part == "gradient":
        return f"the gradient of {network.name_at(error.index)}"
    tally = ["the loss", "the number of correct predictions"]
    tally += [s.name for s in network.statistic_slots for _ in range(s.start, s.stop)]
    return tally[error.index]
