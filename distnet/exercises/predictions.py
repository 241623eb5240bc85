"""Predictions which runs end with the same bits, held against the runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distnet.exercises.finding import Finding, NotYet, not_yet, right
from distnet.exercises.students_file import StudentsFile

NAME = "SAME_BITS"


@dataclass(frozen=True)
class Pair:
    """Two runs in words, the hash of each, and why they are what they are."""

    words: str
    one: Callable[[], str]
    other: Callable[[], str]
    why: str


def complete(file: StudentsFile, pairs: list[Pair]) -> dict[str, bool]:
    """What the student says of each pair; raises NotYet if something is missing."""
    said: dict[str, Any] = file.value(NAME, dict, "a dictionary of True and False")
    for pair in pairs:
        if not isinstance(said.get(pair.words), bool):
            raise NotYet(f"{NAME}[{pair.words!r}] has to be True or False")
    return said


def judged(said: dict[str, bool], pairs: list[Pair]) -> Iterator[Finding]:
    """Makes the runs, and tells what came out."""
    for pair in pairs:
        one, other = pair.one(), pair.other()
        found = one == other
        same = f"the same bits, {one[:8]}..." if found else f"not: {one[:8]}... and {other[:8]}..."
        text = f"{pair.words}: {same}"
        if said[pair.words] == found:
            yield right(f"{text}, as you said")
        else:
            yield not_yet(f"{text}, other than you said; {pair.why}")
