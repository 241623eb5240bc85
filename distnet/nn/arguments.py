"""Arguments of layers, checked once, when the layer is made: each error is one line.

A whole number may be Python's or NumPy's; a bool is neither a whole number nor a number. What is
returned is Python's, so that nothing after the constructor meets another type.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from distnet.base.arrays import Shape


def whole(
    owner: str, name: str, value: object, minimum: int = 1, maximum: int | None = None
) -> int:
    """`value` as an int; raises ValueError unless it is a whole number within the bounds."""
    number = _index(value)
    if number is None or number < minimum or (maximum is not None and number > maximum):
        most = "" if maximum is None else f" and at most {maximum}"
        raise refusal(owner, name, value, f"a whole number of at least {minimum}{most}")
    return number


def pair(owner: str, name: str, value: Any, minimum: int = 1) -> tuple[int, int]:
    """(rows, columns) from two whole numbers, or from one that holds for both."""
    numbers = [_index(part) for part in np.atleast_1d(np.asarray(value, object))]
    if len(numbers) not in (1, 2) or any(n is None or n < minimum for n in numbers):
        raise refusal(owner, name, value, f"a whole number of at least {minimum}, or two of them")
    return numbers[0], numbers[-1]  # type: ignore[return-value]


def real(
    owner: str,
    name: str,
    value: object,
    expected: str = "a finite number",
    accepts: Callable[[float], bool] = lambda number: True,
) -> float:
    """`value` as a float; raises ValueError unless it is a finite number that `accepts` takes."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not accepts(float(value)):  # type: ignore[arg-type]
        raise refusal(owner, name, value, expected)
    return float(value)  # type: ignore[arg-type]


def shape(owner: str, name: str, value: Any) -> Shape:
    """`value` as a tuple of ints; raises ValueError unless it holds whole numbers of at least 1."""
    sizes = [_index(size) for size in value] if np.ndim(value) == 1 else []
    if not sizes or any(size is None or size < 1 for size in sizes):
        raise refusal(owner, name, value, "whole numbers of at least 1, such as (1, 28, 28)")
    return tuple(sizes)  # type: ignore[arg-type]


def image_shape(owner: str, shape: Shape) -> tuple[int, int, int]:
    """(C, H, W), or a ValueError if a layer that works on images is given anything else."""
    if len(shape) != 3:
        raise refusal(owner, "input shape", shape, "images (C, H, W)")
    c, h, w = shape
    return c, h, w


def refusal(owner: str, name: str, value: object, expected: str) -> ValueError:
    """The error that all checks of arguments raise."""
    found = " ".join(repr(value).split())
    return ValueError(f"{owner}: found {name} {found:.80}, expected {expected}")


def _index(value: object) -> int | None:
    """A whole number as an int, None if it is none."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
