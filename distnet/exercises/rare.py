"""Exercise 8: ranks that synchronise rarely, against ranks that do so in every step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from distnet.exercises.finding import Finding, NotYet, note, right, until_not_yet, whether
from distnet.exercises.jobs import ALONE, events, train
from distnet.exercises.predictions import Pair, complete, judged
from distnet.exercises.students_file import StudentsFile

STEPS, LONG, RANKS = 12, 240, 2
CASES = [(39_760, 50, 1), (123_552, 20, 4), (1000, 1, 8)]
LESS_THAN, POINTS = 40, 1.5  # times fewer bytes, for so many points of accuracy at most
PLAIN_MEAN = ("--outer-lr", 1, "--outer-momentum", 0)


def check(file: Path) -> Iterator[Finding]:
    """Bytes of a step, predictions of hashes, and options that lose little."""
    with tempfile.TemporaryDirectory() as scratch:
        yield from until_not_yet(_findings(file, Path(scratch)))


def _findings(file: Path, scratch: Path) -> Iterator[Finding]:
    student = StudentsFile(file)
    per_step = student.function("bytes_per_step")
    for case in CASES:
        parameters, every, size = case
        found, expected = per_step(*case), parameters * size / every
        if not isinstance(found, int | float) or abs(found - expected) > 1e-3 * expected:
            raise NotYet(f"bytes_per_step{case} is {found!r:.60}, expected {expected:.5g}")
    yield right(f"bytes_per_step: right in {len(CASES)} cases")
    pairs = _pairs(scratch)
    yield from judged(complete(student, pairs), pairs)
    options = student.value("OPTIONS", (tuple, list), "a list of options, each a text")
    yield from _traded([str(option) for option in options], scratch)


def _pairs(scratch: Path) -> list[Pair]:
    @cache
    def hash_of(ranks: int, islands: int, *more: object) -> str:
        name = "-".join(map(str, (ranks, islands, *more))) or "plain"
        rare = ("--sync", "local", "--islands", islands, *more) if islands else ()
        found: str = train(ranks, scratch / name, "--steps", STEPS, *rare)["params_sha256"]
        return found

    def run(*args: Any) -> Callable[[], str]:
        return lambda: hash_of(*args)

    every_4, every_1 = ("--sync-every", 4), ("--sync-every", 1)
    return [
        Pair(
            "4 islands on 1 rank and on 2",
            run(ALONE, 4, *every_4),
            run(RANKS, 4, *every_4),
            "islands are logical: any rank may compute any of them",
        ),
        Pair(
            "2 islands and 4 islands",
            run(ALONE, 2, *every_4),
            run(ALONE, 4, *every_4),
            "each island makes its own steps, on its part of each batch",
        ),
        Pair(
            "1 island with --sync-every 1 --outer-lr 1 --outer-momentum 0, and --sync step",
            run(ALONE, 1, *every_1, *PLAIN_MEAN),
            run(ALONE, 0),
            "one island that goes to its own result after every step does nothing else",
        ),
    ]


def _traded(options: list[str], scratch: Path) -> Iterator[Finding]:
    """Accuracy and bytes of a longer run, as it is and with the student's options."""
    found = []
    for name, flags in (("every-step", ["--exchange", "messages"]), ("rare", options)):
        summary = train(RANKS, scratch / name, "--steps", LONG, *flags)
        (epoch,) = events(scratch / name, "epoch")
        found.append((100 * summary["test_accuracy"], epoch["bytes_per_step"]))
    (accuracy, all_bytes), (rare_accuracy, rare_bytes) = found
    factor, loss = all_bytes / max(rare_bytes, 1), accuracy - rare_accuracy
    yield note(
        f"after {LONG} steps: {accuracy:.1f} % with {all_bytes:,} bytes a step, "
        f"{rare_accuracy:.1f} % with {rare_bytes:,} by your options"
    )
    yield whether(
        factor >= LESS_THAN,
        f"your options send {factor:.0f} times fewer bytes",
        f"your options send {factor:.0f} times fewer bytes, expected {LESS_THAN}",
    )
    yield whether(
        loss <= POINTS,
        f"and lose {max(loss, 0):.1f} points of accuracy",
        f"they lose {loss:.1f} points of accuracy, expected at most {POINTS}; fewer islands?",
    )
