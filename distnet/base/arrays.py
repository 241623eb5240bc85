"""What every part of distnet says about arrays: type, shape, samples, and one division."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


class StoredArray:
    """Stands for an array that lies elsewhere and is read when it is indexed, see `data`."""


def read_only(array: Array) -> Array:
    """A view of `array`: who writes into it gets NumPy's error for a read-only array."""
    view = array.view()
    view.flags.writeable = False
    return view


def samples_of(stored: Any, numbers: Array) -> Array:
    """`stored[numbers]`: the samples with those numbers, from an array or a `StoredArray`.

    NumPy copies whole samples in `take` and walks through them when it indexes: half as fast.
    """
    if type(stored) is np.ndarray and stored.flags.c_contiguous and stored.flags.aligned:
        return stored.take(numbers, axis=0)  # of others it would copy all first
    found: Array = stored[numbers]
    return found


def bad_array(arrays: Mapping[str, Array]) -> str | None:
    """The name of the first of `arrays` with a number that is not finite; None if all are."""
    return next((name for name, array in arrays.items() if not np.isfinite(array).all()), None)


def format_shape(shape: Shape) -> str:
    """A shape as it is read: `1 x 28 x 28`."""
    return " x ".join(map(str, shape))


def ceil_divide(a: int, b: int) -> int:
    """The quotient of two whole numbers, rounded up."""
    return -(-a // b)
