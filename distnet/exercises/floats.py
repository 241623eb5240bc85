"""Exercise 3: float32 sums that depend on their order, and sums that do not."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.exercises.finding import Finding, NotYet, right, until_not_yet
from distnet.exercises.jobs import ALONE, train
from distnet.exercises.predictions import Pair, complete, judged
from distnet.exercises.students_file import StudentsFile

STEPS = 12
NUM_VECTORS, LENGTH = 1000, 300  # values of magnitude 1 at most
MOST_OFF = 1e-6  # of a sum
NOT_NUMBERS = (math.nan, math.inf, 1e30)


def check(file: Path) -> Iterator[Finding]:
    """Three numbers, a sum of integers, and predictions of hashes."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from until_not_yet(_findings(file, Path(scratch)))


def _findings(file: Path, scratch: Path) -> Iterator[Finding]:
    student = StudentsFile(file)
    yield _three_numbers(student.value("NUMBERS", (tuple, list), "three numbers"))
    yield from _integers(student.function("to_integers"), student.function("from_integers"))
    pairs = _pairs(scratch)
    yield from judged(complete(student, pairs), pairs)


def _three_numbers(numbers: Any) -> Finding:
    if len(numbers) != 3:
        raise NotYet(f"NUMBERS are {len(numbers)}, expected three")
    a, b, c = map(np.float32, numbers)
    with np.errstate(all="ignore"):
        one, other = (a + b) + c, a + (b + c)
    if not np.isfinite([one, other]).all():
        raise NotYet(f"NUMBERS: (a + b) + c is {one} and a + (b + c) is {other}; stay finite")
    if one == other:
        raise NotYet(
            f"NUMBERS: (a + b) + c and a + (b + c) are both {one} in float32, which has 24 bits: "
            "let one number be so large that another one vanishes beside it"
        )
    return right(f"NUMBERS: in float32 (a + b) + c is {one}, and a + (b + c) is {other}")


def _integers(to: Callable[..., Any], back: Callable[..., Any]) -> Iterator[Finding]:
    """Whether sums of what `to` makes of vectors are what `back` makes of them."""
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (NUM_VECTORS, LENGTH)).astype(np.float32)
    vectors *= 10.0 ** rng.uniform(-5, 0, vectors.shape)
    vectors[:, 0] = 1  # the largest sum that there can be
    integers = [_as_int64(to(vector.copy())) for vector in vectors]
    sums = np.asarray(back(np.sum(integers, axis=0)))
    expected = np.array([math.fsum(column) for column in vectors.T.astype(float)])
    if sums.shape != expected.shape:
        raise NotYet(f"from_integers gives shape {sums.shape}, expected {expected.shape}")
    off = float(np.max(abs(sums - expected)))
    if not off <= MOST_OFF:
        raise NotYet(
            f"the sum of {NUM_VECTORS} vectors is off by {off:.2g}, expected at most {MOST_OFF:g}: "
            "too coarse a unit loses digits, too fine a one exceeds 63 bits"
        )
    yield right(
        f"integers: sums of {NUM_VECTORS} vectors are off by {off:.1g} at most, and integers have "
        "one sum in any order"
    )
    yield _refuses(to)


def _as_int64(found: Any) -> Array:
    if not isinstance(found, np.ndarray) or found.dtype != np.int64:
        kind = getattr(found, "dtype", type(found).__name__)
        raise NotYet(f"to_integers gives {kind}, expected an array of int64")
    return found


def _refuses(to: Callable[..., Any]) -> Finding:
    for value in NOT_NUMBERS:
        try:
            with np.errstate(all="ignore"):
                to(np.array([0.5, value], np.float32))
        except NotYet as refused:
            if isinstance(refused.__cause__, ValueError):
                continue
            raise
        raise NotYet(
            f"to_integers makes an integer of {value:g}, which no integer stands for; raise "
            "ValueError for what is not finite, or larger than 1"
        )
    return right("integers: NaN, infinity and numbers that are too large are refused")


def _pairs(scratch: Path) -> list[Pair]:
    @cache
    def hash_of(reduction: str, ranks: int) -> str:
        flags = "--steps", STEPS, "--reduction", reduction
        found: str = train(ranks, scratch / f"{reduction}-{ranks}", *flags)["params_sha256"]
        return found

    def pair(reduction: str, ranks: int, why: str) -> Pair:
        words = f"{reduction} on 1 rank and on {ranks}"
        return Pair(
            words, lambda: hash_of(reduction, ALONE), lambda: hash_of(reduction, ranks), why
        )

    return [
        pair("exact", 3, "integers have no rounding, so nothing depends on who adds what first"),
        pair("float32", 3, "each rank adds up its own part first, and every addition rounds"),
    ]
