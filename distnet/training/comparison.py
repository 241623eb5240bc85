"""Where two runs part: the first step, the array and the element, and what may be the cause.

Two runs of one configuration have the same bits. Where they do not, the first difference says more
than the last: it names the layer whose numbers came apart, and what the two files say of their
configuration, data and kernels names the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.training import checkpoint as checkpoints
from distnet.training.checkpoint import Checkpoint, CheckpointError
from distnet.training.model_file import CHECKPOINTS, network_of


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

    steps: those of which both have a checkpoint. parted: the first of these after which their
    states differ, None if none does. arrays: the differences after it, in forward order; causes:
    what else the two say differently, a line each.
    """

    steps: list[int]
    parted: int | None
    arrays: list[ArrayDifference]
    causes: list[str]


def compare(one: Path, other: Path) -> Comparison:
    """Compares two runs, or two checkpoints of them; raises CheckpointError for what is none."""
    left, right = files(one), files(other)
    steps = sorted(left.keys() & right.keys())
    if not steps:
        raise CheckpointError(
            f"found no step of which both {one} ({_listed(left)}) and {other} ({_listed(right)}) "
            "have a checkpoint; train with the same --checkpoint-every and --keep 0"
        )
    for step in steps:
        pair = checkpoints.load(left[step]), checkpoints.load(right[step])
        if arrays := list(differences(*pair)):
            return Comparison(steps, step, arrays, list(causes(*pair)))
    pair = checkpoints.load(left[steps[-1]]), checkpoints.load(right[steps[-1]])
    return Comparison(steps, None, [], list(causes(*pair)))


def files(path: Path) -> dict[int, Path]:
    """The checkpoints of a run by step, or the one in a file."""
    if not path.is_dir():
        return {checkpoints.load(path).step: path}
    directory = path / CHECKPOINTS if (path / CHECKPOINTS).is_dir() else path
    return checkpoints.by_step(directory)


def differences(one: Checkpoint, other: Checkpoint) -> Iterator[ArrayDifference]:
    """The arrays of two states whose bits differ, parameters first, in forward order."""
    for name in _in_order(one, other):
        left, right = one.state.get(name), other.state.get(name)
        if left is None or right is None or left.shape != right.shape:
            shapes = (None if array is None else array.shape for array in (left, right))
            found, expected = shapes
            raise CheckpointError(
                f"{name}: found {found} and {expected}, expected the same network"
            )
        if (difference := _difference(name, left, right)) is not None:
            yield difference


def causes(one: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """What may have made the difference, the most telling first."""
    for what, left, right in (
        ("option", one.config, other.config),
        ("data", _data(one), _data(other)),
        ("kernels", one.fingerprint, other.fingerprint),
    ):
        for key in dict.fromkeys([*left, *right]):
            if left.get(key) != right.get(key):
                yield f"{what} {key}: {left.get(key)!r} and {right.get(key)!r}"
    for checkpoint in (one, other):
        reduction = checkpoint.config.get("reduction", "exact")
        if not str(reduction).startswith("exact"):
            yield f"reduction {reduction}: its sums depend on the number of ranks"
            return


def _difference(name: str, one: Array, other: Array) -> ArrayDifference | None:
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


def _in_order(one: Checkpoint, other: Checkpoint) -> list[str]:
    """All names: parameters as a sample passes them, then the moments, then the rest."""
    names = dict.fromkeys([*one.state, *other.state])
    try:
        forward = list(network_of(one, "checkpoint").parameters.named())
    except CheckpointError:
        forward = []
    first = [f"params.{name}" for name in forward if f"params.{name}" in names]
    return [*first, *(name for name in sorted(names) if name not in first)]


def _data(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return dict(checkpoint.model.get("data", {}))


def _listed(found: Mapping[int, Path]) -> str:
    steps = [str(step) for step in sorted(found)]
    more = f", ... {steps[-1]}" if len(steps) > 4 else ""
    return f"steps {', '.join(steps[:4])}{more}" if steps else "none"
