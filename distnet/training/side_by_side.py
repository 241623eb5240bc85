"""Two runs once more, step by step beside each other, until their states part.

It tells what checkpoints cannot: the very step, the part of it in which the first number differs
(the samples, the output of a layer, a gradient, the update), and whether what the two recorded is
what their configurations give here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.nn.sequential import Sequential
from distnet.training.comparison import ArrayDifference, differences
from distnet.training.step.synchronization import EveryStep
from distnet.training.step.trainer import Trainer
from distnet.training.watching.step_hashes import state_sha256


@dataclass(frozen=True)
class Rerun:
    """Two runs made again here from the state after step `start` to the one after step `stop`.

    parted: the first step after which they differ, None if they do not. within: in which part of
    that step; arrays: the differences after it. checked: how many states that each of the two had
    recorded were computed again; strayed: the first one of them that came out otherwise here, None
    if all came out alike.
    """

    start: int
    stop: int
    parted: int | None
    within: str
    arrays: list[ArrayDifference]
    checked: list[int]
    strayed: list[int | None]


def rerun(
    trainers: Sequence[Trainer], start: int, stop: int, recorded: Sequence[Mapping[int, str]]
) -> Rerun:
    """Steps both trainers, which stand after step `start`, until they part, at most to `stop`.

    recorded: `state_sha256` after some steps, as each of the two runs had it. Raises ValueError
    for runs whose ranks do not share a state after the same steps.
    """
    checked: list[int] = [0, 0]
    strayed: list[int | None] = [None, None]
    done = start
    while done < stop:
        before = [_copied(trainer.state()) for trainer in trainers]
        lengths = [trainer.advance(done, stop).num_steps for trainer in trainers]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"--rerun: found runs of which one has a state for all ranks every {lengths[0]} "
                f"steps and the other every {lengths[1]}, expected the same"
            )
        step, done = done, done + lengths[0]
        _check(done, trainers, recorded, checked, strayed)
        one, other = (trainer.state() for trainer in trainers)
        forward = [f"params.{name}" for name in trainers[0].parameters.named()]
        arrays = list(differences(one, other, forward))
        if not arrays and (lone := sorted(one.keys() ^ other.keys())):
            within = f"{lone[0]}, which only one of them keeps"  # such as an average
            return Rerun(start, done, done, within, arrays, checked, strayed)
        if arrays:
            for trainer, state in zip(trainers, before, strict=True):
                trainer.restore(state)
            within = first_part(trainers[0], trainers[1], step)
            return Rerun(start, done, done, within, arrays, checked, strayed)
    return Rerun(start, stop, None, "", [], checked, strayed)


def first_part(one: Trainer, other: Trainer, step: int) -> str:
    """In which part of a step two trainers with equal states come apart first, in words.

    The gradients of both are overwritten.
    """
    pair = (one, other)
    if not all(isinstance(trainer.synchronization, EveryStep) for trainer in pair):
        return "the steps of the islands"
    ours, theirs = (trainer.sampler.micro_batches(step) for trainer in pair)
    for m, (samples, others) in enumerate(zip(ours, theirs)):  # noqa: B905  one may have more
        if not np.array_equal(samples, others):
            return f"the samples of micro-batch {m}"
        stages = (_stages(trainer, step, m, samples) for trainer in pair)
        for (what, left), (beside, right) in zip_longest(*stages, fillvalue=("nothing", samples)):
            if what != beside:  # a layer is frozen, or is not there
                return f"{what} beside {beside} in micro-batch {m}"
            if left.shape != right.shape or left.tobytes() != right.tobytes():
                return f"{what} in micro-batch {m}"
    if len(ours) != len(theirs):
        return "the number of micro-batches"
    return "the update: samples, outputs and gradients are the same"


def _stages(trainer: Trainer, step: int, m: int, samples: Array) -> Iterator[tuple[str, Array]]:
    """What a micro-batch goes through: name and array, in the order of computation."""
    at, objective = MicroBatch(trainer.seed, step, m), trainer.objective
    x, targets = trainer.feed.training(samples, at)
    yield "the input", x
    yield "the targets", np.asarray(targets)
    body = objective.parameters.parts.get("")
    if isinstance(body, Sequential):  # only an objective knows how several are connected
        for name, layer in body.named_layers():
            x = layer.forward(x, at=at)
            yield f"the output of {name}", x
    x, targets = trainer.feed.training(samples, at)  # layers may have written over the first
    divisor = objective.divisor(trainer.feed.targets[trainer.sampler.batch(step)])
    objective.gradients(x, targets, at, divisor)
    for slot in reversed(trainer.parameters.slots):  # as backward computes them
        yield f"the gradient of {slot.name}", slot.of(trainer.parameters.grads)


def _copied(state: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in state.items()}


def _check(
    step: int,
    trainers: Sequence[Trainer],
    recorded: Sequence[Mapping[int, str]],
    checked: list[int],
    strayed: list[int | None],
) -> None:
    """Counts the states that were recorded, and notes the first that is another one here."""
    for number, (trainer, states) in enumerate(zip(trainers, recorded, strict=True)):
        if step not in states:
            continue
        checked[number] += 1
        if strayed[number] is None and state_sha256(trainer.state()) != states[step]:
            strayed[number] = step
