"""Samples held out of a set, for validation or for a test: a pure function of the seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.keys import Purpose, stream
from distnet.base.words import counted
from distnet.data.classes import unlearned
from distnet.data.dataset import NO_TEST, Dataset, Samples
from distnet.data.errors import DataError
from distnet.data.file_array import FileArray

Parts = tuple[Samples, Samples]


def split(samples: Samples, fraction: float, seed: int = 0) -> Parts:
    """The samples that stay, and `fraction` of them that are held out, each in their old order.

    Where targets are labels `(N,)`, that fraction of every class is held out, as nearly as whole
    numbers allow: the samples are put in order of their class, and within it of a random word each,
    and evenly spaced ones are taken. Large files are not read. Raises DataError if one of the two
    sets would be empty.
    """
    held = np.sort(_held_out(samples.targets, fraction, seed))
    kept = np.setdiff1d(np.arange(len(samples.targets)), held, assume_unique=True)
    if not len(held) or not len(kept):
        raise DataError(
            f"found {counted(len(samples.targets), 'sample')} of which a part of {fraction:.3g} is "
            "to be held out, expected enough for at least one on either side"
        )
    return _taken(samples, kept), _taken(samples, held)


def with_test(dataset: Dataset, fraction: float = 1 / 6, seed: int = 0) -> Dataset:
    """The data set itself, or one that tests on a part of its training data if it has no others.

    A sixth is what MNIST has. A note says how many samples that are, and one tells of classes of
    which no sample stays.
    """
    if len(dataset.test.targets):
        return dataset
    train, test = split(dataset.train, fraction, seed)
    held = f"{len(test.targets):,} of {len(dataset.train.targets):,} samples"
    dataset = _tested(dataset, test, f"{held} are held out for the test, by seed {seed}")
    notes = dataset.notes
    if dataset.classes and train.targets.ndim == 1:
        notes += tuple(unlearned([train.targets, test.targets], dataset.classes))
    return replace(dataset, train=train, notes=notes)


def with_all_as_test(dataset: Dataset) -> Dataset:
    """As `with_test`, for who has trained on none of it: its test data or else all that it has."""
    if len(dataset.test.targets):
        return dataset
    every = counted(len(dataset.train.targets), "sample", spec=",")
    return _tested(dataset, dataset.train, f"all of it, {every}, is the test")


def _tested(dataset: Dataset, test: Samples, how: str) -> Dataset:
    notes = [note for note in dataset.notes if note != NO_TEST]
    return replace(dataset, test=test, notes=(*notes, f"{NO_TEST}: {how}"))


def _held_out(targets: Array, fraction: float, seed: int) -> Array:
    order = np.argsort(stream(seed, Purpose.SPLIT).random_raw(len(targets)), kind="stable")
    if targets.ndim == 1:
        order = order[np.argsort(targets[order], kind="stable")]
    reached = np.floor(np.arange(len(order) + 1) * fraction + 0.5)
    return order[np.diff(reached) > 0]


def _taken(samples: Samples, indices: Array) -> Samples:
    return Samples(*(_rows(array, indices) for array in samples))


def _rows(array: Any, indices: Array) -> Any:
    return array.take(indices) if isinstance(array, FileArray) else array[indices]
