"""Exercise 6: the time of a step by a formula, then on a link that is made slow."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from distnet.exercises import slow_link
from distnet.exercises.finding import Finding, NotYet, note, right, until_not_yet, whether
from distnet.exercises.jobs import events, train
from distnet.exercises.students_file import StudentsFile

RANKS, STEPS = 2, 8
TOLERANCE = 0.01
# Ranks, bytes, seconds of latency, bytes per second.
CASES = [
    (2, 1_000_000, 0.001, 1e8),
    (4, 1_000_000, 0.001, 1e8),
    (3, 30, 0.5, 1e9),
    (64, 10**9, 1e-5, 1e10),
    (1, 1000, 0.1, 1e6),
]
COMPUTE_SECONDS = 0.050


def check(file: Path) -> Iterator[Finding]:
    """Three formulas, and a training run beside what they say."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from until_not_yet(_findings(file, Path(scratch)))


def _findings(file: Path, scratch: Path) -> Iterator[Finding]:
    student = StudentsFile(file)
    star, ring = student.function("star_seconds"), student.function("ring_seconds")
    for name, function, rounds in (("star", star, star_rounds), ("ring", ring, ring_rounds)):
        yield _formula(name, function, rounds)
    yield _break_even(student.function("break_even"))
    yield from _measured(ring, scratch)


def star_rounds(ranks: int, num_bytes: int) -> list[float]:
    """The messages of which each waits for the one before, by their bytes."""
    return [num_bytes] * (2 * (ranks - 1))


def ring_rounds(ranks: int, num_bytes: int) -> list[float]:
    return [num_bytes / ranks] * (2 * (ranks - 1))


def _formula(
    name: str, function: Callable[..., Any], rounds: Callable[[int, int], Sequence[float]]
) -> Finding:
    """Held against the messages, one after another."""
    for ranks, num_bytes, latency, rate in CASES:
        messages = rounds(ranks, num_bytes)
        expected = sum(latency + each / rate for each in messages)
        found = function(ranks, num_bytes, latency, rate)
        _compare(f"{name}_seconds{(ranks, num_bytes, latency, rate)}", found, expected)
    return right(f"{name}_seconds: right in {len(CASES)} cases")


def _compare(what: str, found: Any, expected: float) -> None:
    if not isinstance(found, int | float) or math.isnan(found):
        raise NotYet(f"{what} is {found!r:.60}, expected a number")
    if not math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=1e-12):
        raise NotYet(f"{what} is {found:.4g}, expected {expected:.4g}")


def _break_even(function: Callable[..., Any]) -> Finding:
    """A rate at which the ring takes as long as computing."""
    for ranks, num_bytes, latency in ((2, 10**6, 0.001), (8, 10**7, 1e-4)):
        rate = function(COMPUTE_SECONDS, ranks, num_bytes, latency)
        what = f"break_even{(COMPUTE_SECONDS, ranks, num_bytes, latency)}"
        if not isinstance(rate, int | float) or not rate > 0:
            raise NotYet(f"{what} is {rate!r:.60}, expected bytes per second")
        took = sum(latency + each / rate for each in ring_rounds(ranks, num_bytes))
        if not math.isclose(took, COMPUTE_SECONDS, rel_tol=TOLERANCE):
            raise NotYet(
                f"{what} is {rate:.4g}: at that rate the ring takes {took:.4g} s, expected "
                f"{COMPUTE_SECONDS:g} s"
            )
    return right("break_even: at that rate the ring takes as long as computing")


def _measured(ring: Callable[..., Any], scratch: Path) -> Iterator[Finding]:
    """Waiting takes as long as it is told to, at least; what comes on top is told."""
    out = scratch / "slow"
    summary = train(RANKS, out, "--steps", STEPS, "--allreduce", f"{slow_link.__name__}:ring")
    (figures,) = events(out, "allreduce")
    (epoch,) = events(out, "epoch")
    num_bytes = epoch["bytes_per_step"]
    link = slow_link.LATENCY_SECONDS, slow_link.BYTES_PER_SECOND
    predicted, measured = float(ring(RANKS, num_bytes, *link)), figures["own_seconds"]
    yield whether(
        measured >= (1 - TOLERANCE) * predicted,
        f"a sum of {num_bytes:,} bytes on {RANKS} ranks over the slow link: {predicted * 1e3:.1f} "
        f"ms by your formula, {measured * 1e3:.1f} ms measured",
        f"a sum over the slow link took {measured * 1e3:.1f} ms, less than the "
        f"{predicted * 1e3:.1f} ms of your formula",
    )
    yield note(
        f"{(measured - predicted) * 1e3:.1f} ms are in no formula: adding, copying, waiting for a "
        f"processor; the result is that of every other way ({summary['params_sha256'][:16]}...)"
    )
