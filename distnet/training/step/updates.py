"""What updates the parameters: an optimizer, what it keeps beside them, and who has which share."""

from __future__ import annotations

from typing import Any

from distnet.nn.parameters import Parameters
from distnet.optim import OPTIMIZERS, Averaged, Bounded, MasterWeights, Optimizer, make_optimizer
from distnet.parallel.communicator import Communicator
from distnet.training.step.sharding import Sharded


def optimizer_for(
    parameters: Parameters,
    optimizer: str | Optimizer,
    *,
    ema: float = 0.0,
    sharing: Communicator | None = None,
    **settings: Any,
) -> Optimizer:
    """The optimizer of that name, or the one given, as it suits the parameters.

    ema: the decay of an average of its updates, 0 for none; settings: see `make_optimizer`.
    sharing: ranks of which each keeps a share of the optimizer of that name, see `sharding`. Where
    the network computes on numbers of 16 bits, its parameters are rounded to them, and trained in
    float32.
    """
    arithmetic, values = parameters.arithmetic, parameters.values
    if not isinstance(optimizer, str):
        made = _with_memory(optimizer, parameters, slice(0, values.size), ema)
    elif sharing is None or sharing.size == 1:
        made = _of_part(parameters, optimizer, slice(0, values.size), ema, settings)
    else:
        made = Sharded(
            sharing,
            values.size,
            lambda part: _of_part(parameters, optimizer, part, ema, settings),
            segments=None if OPTIMIZERS[optimizer].elementwise else _arrays(parameters),
            clip_norm=settings.get("clip_norm", 0.0),
            arithmetic=arithmetic,
        )
    if arithmetic.stores:
        arithmetic.store(values)
        arithmetic.store(parameters.constants)
        parameters.refresh()
    return made


def _of_part(
    parameters: Parameters, name: str, part: slice, ema: float, settings: dict[str, Any]
) -> Optimizer:
    """Of [start, stop) of the vectors, which ends where arrays do if the rule needs whole ones."""
    inside = [
        (max(start, part.start) - part.start, min(stop, part.stop) - part.start)
        for start, stop in _arrays(parameters)
        if start < part.stop and stop > part.start
    ]
    optimizer = make_optimizer(
        name,
        part.stop - part.start,
        dtype=parameters.dtype,
        arithmetic=parameters.arithmetic,
        decayed=parameters.decays[part],
        segments=inside or None,
        **settings,
    )
    return _with_memory(optimizer, parameters, part, ema)


def _with_memory(
    optimizer: Optimizer, parameters: Parameters, part: slice, ema: float
) -> Optimizer:
    """What it keeps of the parameters themselves."""
    start, arithmetic = parameters.values[part], parameters.arithmetic
    if arithmetic.stores or ema:
        optimizer = bounded(optimizer, parameters, part)
    if arithmetic.stores:
        optimizer = MasterWeights(optimizer, start, arithmetic)
    return Averaged(optimizer, ema, start) if ema else optimizer


def bounded(optimizer: Optimizer, parameters: Parameters, part: slice = slice(None)) -> Optimizer:
    """One for others to keep its results: within the bounds of the layers, if there are any.

    part: that of the vectors which it updates. Without others around it, it does what `optimizer`
    does, since layers cut what they get.
    """
    bounds = parameters.bounds()
    return optimizer if bounds is None else Bounded(optimizer, bounds[part])


def _arrays(parameters: Parameters) -> list[tuple[int, int]]:
    """The places of the parameters in their vector."""
    return [(slot.start, slot.stop) for slot in parameters.slots]
