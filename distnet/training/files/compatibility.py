"""Whether a run can go on from a checkpoint, and how one is read as that of another run."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from distnet.training.files.checkpoint import SUM, Checkpoint, CheckpointError

LENGTH = ("steps", "epochs")  # of which `config` has the one in force, or none


def check_compatible(checkpoint: Checkpoint, own: Checkpoint) -> None:
    """Raises CheckpointError unless a run whose state is `own` can go on from `checkpoint`.

    They need the same `config` (where the caller may put more than options, such as a hash of the
    data) and arrays of the same names, shapes and types.
    """
    where = f"checkpoint of step {checkpoint.step}"
    remedy = "resume with what wrote it, or start a new run in another --out"
    for what, found, expected in _contents(checkpoint, own):
        if found != expected:
            raise CheckpointError(f"{where}: {what}: found {found}, expected {expected}; {remedy}")


def with_defaults(
    own: Checkpoint, checkpoint: Checkpoint, defaults: Mapping[str, Any]
) -> Checkpoint:
    """`checkpoint` with `defaults` for the options of `own` that it does not know.

    One of an earlier version was computed as these options are by default. How long a run is
    (LENGTH) has no default: a checkpoint names it only where the schedule depends on it.
    """
    unknown = defaults.keys() & own.config.keys() - checkpoint.config.keys() - set(LENGTH)
    missing = {name: defaults[name] for name in unknown}
    return replace(checkpoint, config={**checkpoint.config, **missing})


def with_length_of(own: Checkpoint, checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint` as one of a run that is as long as `own`."""
    rest = {name: value for name, value in checkpoint.config.items() if name not in LENGTH}
    length = {name: own.config[name] for name in LENGTH if name in own.config}
    return replace(checkpoint, config=rest | length)


def with_reduction_of(own: Checkpoint, checkpoint: Checkpoint) -> Checkpoint:
    """`checkpoint` as the start of a run that sums gradients as `own`, whose sum starts anew."""
    found, new = checkpoint.state.items(), own.state.items()
    kept = {name: array for name, array in found if not name.startswith(SUM)}
    fresh = {name: array for name, array in new if name.startswith(SUM)}
    config = {**checkpoint.config, "reduction": own.config["reduction"]}
    return replace(checkpoint, state=kept | fresh, config=config)


def _contents(checkpoint: Checkpoint, own: Checkpoint) -> Iterator[tuple[str, str, str]]:
    """What there is on either side, in words, the most telling first."""
    for key in dict.fromkeys([*own.config, *checkpoint.config]):
        yield key, _described(checkpoint.config, key, repr), _described(own.config, key, repr)
    found, expected = checkpoint.state, own.state
    for name in dict.fromkeys([*expected, *found]):
        yield name, _described(found, name, _shape), _described(expected, name, _shape)


def _described(entries: Mapping[str, Any], name: str, describe: Callable[[Any], str]) -> str:
    return describe(entries[name]) if name in entries else "nothing"


def _shape(array: np.ndarray) -> str:
    return f"{array.dtype.name} {array.shape}"
