"""Where two runs part: the first step, the array and the element, and what may be the cause.

Two runs of one configuration have the same bits. Where they do not, the first difference says more
than the last: it names the layer whose numbers came apart, and what the two files say of their
configuration, data and kernels names the cause. Step hashes (`step_hashes`) tell the step, as far
as there are any; checkpoints tell the array.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.training.files import checkpoint as checkpoints
from distnet.training.files.checkpoint import Arrays, Checkpoint, CheckpointError
from distnet.training.files.checkpoint_directory import by_step
from distnet.training.files.model_file import CHECKPOINTS, network_of, read
from distnet.training.options import OTHERS
from distnet.training.watching.step_hashes import Chain, state_sha256


@dataclass(frozen=True)
class ArrayDifference:
    """An array that two states do not share: its first element that differs, and how many do.

    index: of that element. one, other: its values. largest: of all magnitudes of differences; NaN
    if one of the numbers is.
    """

    name: str
    index: tuple[int, ...]
    one: float
    other: float
    count: int
    size: int
    largest: float

    def __str__(self) -> str:
        place = ", ".join(map(str, self.index))
        return (
            f"{self.name}[{place}] is {self.one!r} and {self.other!r}; {self.count:,} of "
            f"{self.size:,} elements differ, by at most {self.largest:.3g}"
        )


@dataclass(frozen=True)
class Comparison:
    """What two runs have in common and what not.

    steps: those after which the states of both are known, by step hashes or checkpoints. same: the
    last of them before they part, None if there is none. parted: the first one after which the
    states differ, None if none does. located: the first one whose checkpoints show it, None if
    there is none. arrays: the differences there, in forward order; causes: what else the two say
    differently, a line each; problems: what is wrong with the files themselves.
    """

    steps: list[int]
    same: int | None
    parted: int | None
    located: int | None
    arrays: list[ArrayDifference]
    causes: list[str]
    problems: list[str]


@dataclass(frozen=True)
class Evidence:
    """What is known of the states of a run: its checkpoints by step, its step hashes, its ranks.

    Raises CheckpointError for a path where there is neither a run nor a checkpoint.
    """

    path: Path
    checkpoints: Mapping[int, Path]
    chain: Chain = field(default_factory=lambda: Chain({}, None))
    ranks: int | None = None

    @classmethod
    def of(cls, path: Path) -> Evidence:
        """The evidence in a run's directory, in one with checkpoints, or in a checkpoint."""
        if not path.is_dir():
            return cls(path, {checkpoints.load(path).step: path})
        directory = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
        chain = Chain.read(path / "metrics.jsonl")
        return cls(path, by_step(directory), chain, _ranks(path / "summary.json"))

    def load(self, step: int) -> Checkpoint:
        """The checkpoint after `step` updates, or a model file, in numbers whatever holds them."""
        return read(self.checkpoints[step])

    @cached_property
    def newest(self) -> Checkpoint | None:
        """The last checkpoint, whose configuration, data and kernels are those of the run."""
        return self.load(max(self.checkpoints)) if self.checkpoints else None

    def problems(self, checkpoint: Checkpoint | None) -> Iterator[str]:
        """What its files say against each other, as far as `checkpoint` is concerned."""
        if self.chain.broken is not None:
            yield (
                f"{self.path}: the chain of step hashes is broken at step {self.chain.broken}: a "
                "line of metrics.jsonl before it was changed, or is missing"
            )
        if checkpoint is None:
            return
        recorded = self.chain.states.get(checkpoint.step)
        if recorded not in (None, state_sha256(checkpoint.state)):
            yield (
                f"{self.path}: the checkpoint of step {checkpoint.step} is not the state whose "
                "hash is in metrics.jsonl"
            )


def compare(one: Path, other: Path) -> Comparison:
    """Compares two runs, or two checkpoints of them; raises CheckpointError for what is none."""
    left, right = Evidence.of(one), Evidence.of(other)
    saved = sorted(left.checkpoints.keys() & right.checkpoints.keys())
    hashed = sorted(left.chain.states.keys() & right.chain.states.keys())
    if not saved and not hashed:
        raise CheckpointError(
            f"found no step of which both {one} ({_listed(left)}) and {other} ({_listed(right)}) "
            "have a checkpoint or a hash; train with the same --checkpoint-every and --keep 0, or "
            "--hash-every"
        )
    unequal = [step for step in hashed if left.chain.states[step] != right.chain.states[step]]
    proven = max((step for step in hashed if step < min(unequal, default=step + 1)), default=-1)
    located, arrays = _first_pair(left, right, [step for step in saved if step > proven])
    parted = min([*unequal[:1], *([] if located is None else [located])], default=None)
    steps = sorted({*saved, *hashed})
    pair = [
        run.newest if located is None else run.load(located)  # they may have had other kernels
        for run in (left, right)
    ]
    return Comparison(
        steps,
        max((step for step in steps if parted is None or step < parted), default=None),
        parted,
        located,
        arrays,
        list(causes(left, right, *pair)),
        [line for run, at in zip((left, right), pair, strict=True) for line in run.problems(at)],
    )


def differences(
    one: Arrays, other: Arrays, forward: Sequence[str] = ()
) -> Iterator[ArrayDifference]:
    """The arrays of two states whose bits differ, the parameters first, in the order `forward`.

    What only one of them has, such as the moments of another optimizer, is passed over. Raises
    CheckpointError for arrays of different shapes, and for parameters of another network.
    """
    for name in _in_order({**one, **other}, forward):
        left, right = one.get(name), other.get(name)
        if left is not None and right is not None and left.shape == right.shape:
            if (difference := _difference(name, left, right)) is not None:
                yield difference
        elif name.startswith("params."):
            found, expected = (None if array is None else array.shape for array in (left, right))
            raise CheckpointError(
                f"{name}: found {found} and {expected}, expected the same network"
            )


def causes(
    left: Evidence, right: Evidence, one: Checkpoint | None, other: Checkpoint | None
) -> Iterator[str]:
    """What may have made the difference, the most telling first."""
    if one is None or other is None:
        return
    for what, ours, theirs in (
        ("option", one.config, other.config),
        ("data", _data(one), _data(other)),
        ("kernels", one.fingerprint, other.fingerprint),
    ):
        for key in dict.fromkeys([*ours, *theirs]):
            is_of_data = key == "data_sha256" and "sha256" in _data(one)  # which follows, once
            if ours.get(key) != theirs.get(key) and not is_of_data:
                yield f"{what} {key}: {ours.get(key)!r} and {theirs.get(key)!r}"
    for checkpoint in (one, other):
        reduction = checkpoint.config.get("reduction", "exact")
        if reduction in OTHERS:
            ranks = f", {left.ranks} and {right.ranks}" if left.ranks and right.ranks else ""
            yield f"reduction {reduction}: its sums depend on the number of ranks{ranks}"
            return


def forward_names(checkpoint: Checkpoint) -> list[str]:
    """The names of its parameters in the order in which a sample passes them, if it says so."""
    try:
        named = network_of(checkpoint, "checkpoint").parameters.named()
    except CheckpointError:
        return []
    return [f"params.{name}" for name in named]


def _first_pair(
    left: Evidence, right: Evidence, steps: Sequence[int]
) -> tuple[int | None, list[ArrayDifference]]:
    """The first of `steps` whose checkpoints differ, and in what."""
    for step in steps:
        one, other = left.load(step), right.load(step)
        if found := list(differences(one.state, other.state, forward_names(one))):
            return step, found
    return None, []


def _difference(name: str, one: Array, other: Array) -> ArrayDifference | None:
    if one.dtype != other.dtype:  # of a file that holds them in fewer bytes
        common = np.result_type(one, other)
        one, other = one.astype(common), other.astype(common)
    if one.tobytes() == other.tobytes():
        return None
    kind = f"u{one.dtype.itemsize}"  # bits: NaN equals itself, and 0 is not -0
    unequal = np.ascontiguousarray(one).view(kind) != np.ascontiguousarray(other).view(kind)
    index = np.unravel_index(int(unequal.argmax()), one.shape)
    with np.errstate(all="ignore"):
        largest = np.abs(one.astype(np.float64) - other.astype(np.float64)).max()
    return ArrayDifference(
        name,
        tuple(int(i) for i in index),
        float(one[index]),
        float(other[index]),
        int(np.count_nonzero(unequal)),
        one.size,
        float(largest),
    )


def _in_order(names: Arrays, forward: Sequence[str]) -> list[str]:
    """All names: parameters as a sample passes them, then the moments, then the rest."""
    first = [name for name in forward if name in names]
    return [*first, *(name for name in sorted(names) if name not in first)]


def _data(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return dict(checkpoint.model.get("data", {}))


def _ranks(summary: Path) -> int | None:
    """How many ranks a run had at its end, if it has ended."""
    try:
        return int(json.loads(summary.read_bytes())["ranks"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _listed(run: Evidence) -> str:
    found = sorted({*run.checkpoints, *run.chain.states})
    steps = [str(step) for step in found]
    more = f", ... {steps[-1]}" if len(steps) > 4 else ""
    return f"steps {', '.join(steps[:4])}{more}" if steps else "none"
