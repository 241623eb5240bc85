"""Whether what a user wrote keeps the contracts that the result's bits rest on, tried beforehand.

A layer, an objective or an optimizer may draw or keep something by itself, where the contracts let
it depend on the micro-batch and on `state` alone: on other ranks, or resumed, it would give another
result without a word. Called by `fit`, by `learn_to_play` and by the training command.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.base.output import warn
from distnet.nn.layer import Layer
from distnet.nn.network import Network
from distnet.nn.own_layers import is_own, own_in
from distnet.objectives import Objective
from distnet.optim import Optimizer
from distnet.training.step.sharding import Sharded
from distnet.training.step.trainer import Trainer

FIRST = 16  # samples by which layers are tried


def check_own_parts(trainer: Trainer, *, goes_on: bool = False) -> None:
    """Raises ValueError if a layer, optimizer or objective of a user's own breaks its contract.

    goes_on: training has begun earlier, with this objective.
    """
    check_own_layers(trainer.objective, trainer.feed.inputs, trainer.seed)
    _check_optimizer(trainer)
    if not goes_on:
        _check_objective(trainer)


def check_own_layers(objective: Objective, inputs: Any, seed: int) -> None:
    """Raises ValueError if a layer of a user's own makes two things of one micro-batch.

    inputs: as the data set has them, of which the first are taken. A copy of the network is asked,
    so that the network itself stays as it is.
    """
    network = getattr(objective, "network", None)
    own = own_in(network.body) if isinstance(network, Network) else []
    if network is None or not own:
        return
    x = np.array(objective.as_input(inputs[: min(FIRST, len(inputs))]))
    if x.shape[1:] != network.input_shape:  # only the objective knows what it makes of it
        return
    asked, at = copy.deepcopy(network), MicroBatch(seed, 0, 0, 1.0)
    whole, half = (_moments(asked, x, at._replace(share=share)) for share in (1.0, 0.5))
    answers = [asked.forward(x, mode).copy() for mode in (None, at, at, None)]
    names = ", ".join(own)
    if not _are_close(*answers[1:3]):
        raise ValueError(
            f"{names}: found two answers to the same micro-batch in training, expected one; random "
            "numbers have to follow from `at`, and nothing may be kept from one to the next"
        )
    if not _are_close(answers[0], answers[3]):
        raise ValueError(
            f"{names}: found another answer in evaluation after a pass in training, expected "
            "the same; what a layer keeps of a micro-batch has to be a Statistic, which ranks share"
        )
    if not _are_close(whole, 2 * half):
        raise ValueError(
            f"{names}: found a Statistic whose `batch` is not half as large in a batch twice as "
            "large, expected what one micro-batch contributes to be multiplied by `at.share`"
        )


def _moments(network: Network, x: Array, at: MicroBatch) -> Array:
    """What a micro-batch contributes to the running statistics that are plain averages."""
    network.forward(x, at)
    parameters = network.parameters
    sizes = {slot.name: slot.stop - slot.start for slot in parameters.statistic_slots}
    plain = [s for s in parameters.batch_slots if s.stop - s.start == sizes[s.name]]
    return np.concatenate([np.empty(0), *(s.of(parameters.batch_statistics) for s in plain)])


def _check_optimizer(trainer: Trainer) -> None:
    """Raises ValueError if one of a user's own makes two things of one gradient and one `state`.

    What else it keeps would be in no checkpoint, and what it draws is another on each rank. A copy
    is asked, where there can be one. Warns if nothing changes: some mean to wait for more.
    """
    optimizer = trainer.optimizer
    if isinstance(optimizer, Sharded):
        optimizer = optimizer.shares[0].optimizer
    kinds = [optimizer]
    while isinstance(inner := getattr(kinds[-1], "optimizer", None), Optimizer):
        kinds.append(inner)
    own = [type(each).__name__ for each in kinds if is_own(each)]
    if not own or not optimizer.size:
        return
    try:
        asked = copy.deepcopy(optimizer)
    except Exception:  # it holds a lock, say, or an open file
        return
    rule, who = kinds[-1], ", ".join(own)
    start = trainer.parameters.values[: optimizer.size] + 1  # of which none shall be 0
    state = {name: array.copy() for name, array in asked.state.items()}

    def update(gradients: Array) -> Array:
        """What one gradient changes, from the same state."""
        for name, array in asked.state.items():
            array[...] = state.get(name, 0)
        asked.refresh()
        values = start.copy()
        asked.step(values, gradients, 0.01, t=1)
        return values - start

    ones = np.ones_like(start)
    updates = [update(ones), update(ones)]
    if late := [name for name in asked.state if name not in state]:
        raise ValueError(
            f"{who}: found {late[0]!r:.60} in `state` after an update, and not before, "
            "expected all from the beginning, as checkpoints hold no other; name it in `slots`, or "
            "put it there in the constructor"
        )
    if not _are_close(*updates):
        raise ValueError(
            f"{who}: found two updates of the same parameters by the same gradient, "
            "expected one; what an optimizer keeps from step to step has to be arrays in `state`, "
            "which checkpoints hold, and it may draw nothing itself"
        )
    _check_settings(rule, who, update, ones)
    if isinstance(trainer.optimizer, Sharded):
        _check_elementwise(rule, who, update, ones)
    if not updates[0].any() and trainer.comm.rank == 0:
        warn(
            f"fit: an update by {who} changes no parameter, by gradients of 1 with a "
            "learning rate of 0.01; a rule changes `p` in place, as in `p -= lr * g`, since "
            "`p = p - lr * g` is another array, which nobody reads"
        )


def _check_settings(
    rule: Optimizer, who: str, update: Callable[[Array], Array], ones: Array
) -> None:
    """Raises ValueError if a rule makes no difference of the settings that it has accepted."""
    ignored = []
    if rule.clip_norm:  # both are longer
        clipped = [update(ones * ones.dtype.type(n * rule.clip_norm)) for n in (2, 4)]
        ignored += [] if _are_close(*clipped) else ["clip_norm"]
    if rule.decays and update(ones).any() and not update(0 * ones).any():
        ignored += ["weight_decay"]
    if ignored:
        raise ValueError(
            f"{who}: found updates for which {' and '.join(ignored)} makes no difference, expected "
            "some; write the rule in `_update`, which gets the gradient clipped and decayed"
        )


def _check_elementwise(
    rule: Optimizer, who: str, update: Callable[[Array], Array], ones: Array
) -> None:
    """Raises ValueError if a rule whose arrays are shared out looks at the whole gradient."""
    small = ones.dtype.type(0.1 * rule.clip_norm / ones.size or 1)  # shorter than that
    same = slice(ones.size // 2)
    other = np.concatenate([ones[same], 3 * ones[same.stop :]])
    if not _are_close(*(update(small * each)[same] for each in (ones, other))):
        raise ValueError(
            f"{who}: found an update that depends on the gradients of other parameters, "
            "expected `elementwise = False` in its class, so that no array is shared out"
        )


def _check_objective(trainer: Trainer) -> None:
    """Raises ValueError if one of a user's own makes two things of the first micro-batch.

    Or one of ours does, by layers of a user's own that draw, in any of its networks, forward or
    backward. And if it does not divide by what it is told to, tells no loss, or changes gradients
    that it has announced, which would show only where there are ranks to which they are sent.
    """
    objective = trainer.objective
    bodies = (part for part in objective.parameters.parts.values() if isinstance(part, Layer))
    own = [type(objective).__name__] if is_own(objective) else []
    own += [name for body in bodies for name in own_in(body)]
    if not own:
        return
    batch, who = trainer.batch(0), ", ".join(own)

    def answer() -> list[Array]:
        """The loss, the gradients, all else."""
        sums = batch.compute(0, ready=lambda start: None)
        return [sums[:1], trainer.parameters.grads.copy(), sums[1:]]

    first, again = answer(), answer()
    if not all(map(_are_close, first, again)):
        raise ValueError(
            f"{who}: found two answers to the same micro-batch, expected one, on whichever rank; "
            "random numbers have to follow from `at`, such as "
            "np.random.default_rng([at.seed, at.step, at.number]), and nothing may be kept from "
            "one micro-batch to the next"
        )
    told = objective.metrics(float(first[0][0]), first[2][: len(objective.counts)], batch.sizes[0])
    if "loss" not in told:
        raise ValueError(
            f"{type(objective).__name__}: metrics returned {', '.join(told) or 'none'}, "
            'expected "loss" among them, by which equal evaluations are told apart'
        )
    if not is_own(objective) or len(batch.micro_batches) == 1:
        return
    batch.double()
    halves = [2 * each for each in answer()[:2]]
    if not all(map(_are_close, first[:2], halves)):
        raise ValueError(
            f"{type(objective).__name__}: found a micro-batch whose loss and gradients are not "
            "half as large in a batch twice as large, expected them to be divided by `divisor`, "
            "which belongs to the whole batch, and not by the size of the micro-batch"
        )


def _are_close(one: Array, other: Array) -> bool:
    """Whether they differ by rounding at most."""
    with np.errstate(all="ignore"):
        scale = np.nanmax(np.abs(one), initial=0)
        return np.allclose(one, other, rtol=0, atol=1e-4 * scale, equal_nan=True)
