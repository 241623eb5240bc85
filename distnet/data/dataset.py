"""What a data set is: samples for training and for the test, their classes, shape and digest.

`registry` loads those that have a name, `own` makes them of a user's arrays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from distnet.base.arrays import Array, Shape


class Samples(NamedTuple):
    """Inputs `(N, ...)` and what they are to be mapped to, `(N, ...)`; indexed by index arrays."""

    inputs: Array
    targets: Array


NO_TEST = "there are no test data"  # a note


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set whose inputs have one shape.

    name: what summaries and run directories call it.
    train, test: images `(N, C, H, W)`, uint8 or floats, and labels `(N,)`, whole numbers.
    classes: the name of each label; label k means `classes[k]`.
    notes: lines that a reader of the files has to tell their user, such as how labels were mapped.
    pictures: how picture files became such inputs, one of `pictures.PREPARATIONS`, "" if none were.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    pictures: str = ""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def input_shape(self) -> Shape:
        """The shape of one input, `(C, H, W)`."""
        return self.train.inputs.shape[1:]

    @property
    def scale(self) -> float:
        """What a stored number is multiplied by on its way into a network; see `pixel_scale`."""
        return pixel_scale(self.train.inputs)

    @cached_property
    def sha256(self) -> str:
        """What tells this data from other data; see `digest`."""
        return digest((*self.train, *self.test))

    def known_by(self, sha256: str) -> Self:
        """Itself, with its digest known beforehand: nobody needs to read the arrays for it."""
        self.__dict__["sha256"] = sha256
        return self


def pixel_scale(images: Array) -> float:
    """1/255 for bytes, which mean 0 to 1 everywhere; 1 for floats, which are taken as they are."""
    return 1 / 255 if images.dtype == np.uint8 else 1.0


WHOLE_BYTES = 1 << 30  # an array of up to this size is read whole for its digest
PIECE_BYTES = 1 << 20  # what is read at a time
NUM_PIECES = 256  # how many pieces are read of a larger array


def digest(arrays: Iterable[Array]) -> str:
    """The SHA-256 of the arrays' bytes, `(N, ...)` each, one array after the other.

    Of an array of more than `WHOLE_BYTES`, which may be mapped and larger than memory, it takes
    the type, the shape and `NUM_PIECES` pieces at even distances, the first and the last samples
    among them. In a second that tells apart what was exchanged, cut off or written anew, but not
    what was changed in one place.
    """
    sha = hashlib.sha256()
    for array in arrays:
        rows = max(1, PIECE_BYTES * len(array) // max(1, array.nbytes))
        starts: Sequence[int] = range(0, len(array), rows)
        if array.nbytes > WHOLE_BYTES:
            sha.update(f"{array.dtype.str} {array.shape}".encode())
            last = len(array) - rows
            starts = [last * i // (NUM_PIECES - 1) for i in range(NUM_PIECES)]
        for start in starts:
            sha.update(np.ascontiguousarray(array[start : start + rows]).data)
    return sha.hexdigest()
