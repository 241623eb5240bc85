"""What must hold for the numbers of an experiment: a line of the acceptance table each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bound:
    """What a number, or every element of an array of numbers, must lie between, ends included."""

    text: str
    low: Any
    high: Any

    def holds(self, measured: Any) -> bool:
        """Whether `measured` keeps to it; NaN never does, nor an array of another shape."""
        value = np.asarray(measured, np.float64)
        if np.ndim(self.low) and np.shape(self.low) != value.shape:
            return False
        return bool(np.all((value >= self.low) & (value <= self.high)))


def at_least(low: float) -> Bound:
    return Bound(f">= {low:g}", low, np.inf)


def at_most(high: float) -> Bound:
    return Bound(f"<= {high:g}", -np.inf, high)


def between(low: float, high: float) -> Bound:
    return Bound(f"{low:g} to {high:g}", low, high)


def near(value: float | Sequence[Any], tolerance: float) -> Bound:
    """Within `tolerance` of a number or, element by element, of a (nested) list of them."""
    text = f"{short(value)} ± {tolerance:g}" if tolerance else f"{short(value)} exactly"
    centre = np.asarray(value, np.float64)
    return Bound(text, centre - tolerance, centre + tolerance)


def exactly(value: float | Sequence[Any]) -> Bound:
    return near(value, 0)


@dataclass(frozen=True)
class Required:
    """A line of the acceptance table: number `key` of an experiment has to keep to `bound`.

    id: the line's name, such as "A7". quick: the looser bound of the reduced version, if any.
    only_full: not judged in the reduced version, where it would tell nothing: an untrained network
    would keep to any bound that the reduced version can keep to.
    needs: a file of weights that the book publishes, without which it cannot be measured.
    """

    id: str
    what: str
    key: str
    bound: Bound
    quick: Bound | None = None
    only_full: bool = False
    needs: str = ""

    def judge(self, numbers: Mapping[str, Any], quick: bool, has_needed: bool = True) -> Verdict:
        """The verdict on `numbers`, of a reduced version if `quick`."""
        bound = self.quick if quick and self.quick else self.bound
        if not has_needed:
            missing = f"needs {self.needs} in --weights DIR"
            return Verdict(self.id, self.what, missing, bound.text, None)
        if quick and self.only_full:
            return Verdict(self.id, self.what, "not judged in the quick version", bound.text, None)
        measured = numbers[self.key]
        return Verdict(self.id, self.what, short(measured), bound.text, bound.holds(measured))


@dataclass(frozen=True)
class Verdict:
    """A judged line of the acceptance table; `holds` is None if it could not be measured."""

    id: str
    what: str
    measured: str
    required: str
    holds: bool | None

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "not run"}[self.holds]
        return f"{self.id:4} {word:7} {self.what}: {self.measured} (required: {self.required})"


def short(value: Any) -> str:
    """A number in at most 10 digits, a list in full if it is short, else by its shape."""
    if isinstance(value, bool | str):
        return str(value)
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{array.item():.10g}"
    if array.size > 6:
        return f"{' x '.join(map(str, array.shape))} numbers"
    return f"[{', '.join(map(short, array))}]"
