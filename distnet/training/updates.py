"""What updates the parameters: an optimizer, and what it keeps beside them."""

from __future__ import annotations

from typing import Any

from distnet.nn.parameters import Parameters
from distnet.optim import Averaged, MasterWeights, Optimizer, make_optimizer


def optimizer_for(
    parameters: Parameters, optimizer: str | Optimizer, *, ema: float = 0.0, **settings: Any
) -> Optimizer:
    """The optimizer of that name, or the one given, as it suits the parameters.

    ema: the decay of an average of its updates, 0 for none; settings: see `make_optimizer`. Where
    the network computes on numbers of 16 bits, its parameters are rounded to them, and trained in
    float32.
    """
    arithmetic = parameters.arithmetic
    if isinstance(optimizer, str):
        optimizer = make_optimizer(
            optimizer,
            parameters.values.size,
            dtype=parameters.dtype,
            arithmetic=arithmetic,
            decayed=parameters.decays,
            segments=[(slot.start, slot.stop) for slot in parameters.slots],
            **settings,
        )
    if arithmetic.stores:
        optimizer = MasterWeights(optimizer, parameters.values, arithmetic)
        arithmetic.store(parameters.constants)
        parameters.refresh()
    return Averaged(optimizer, ema, parameters.values) if ema else optimizer
