"""What the check of an exercise found, in sentences: what is right, what is not yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """What a finding says of the student's work; a note decides nothing."""

    RIGHT = "right"
    NOT_YET = "not yet"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One sentence of the report."""

    grade: Grade
    text: str


def right(text: str) -> Finding:
    return Finding(Grade.RIGHT, text)


def not_yet(text: str) -> Finding:
    return Finding(Grade.NOT_YET, text)


def note(text: str) -> Finding:
    return Finding(Grade.NOTE, text)


def whether(holds: bool, if_right: str, if_not: str) -> Finding:
    """One of two sentences."""
    return right(if_right) if holds else not_yet(if_not)


class NotYet(Exception):  # noqa: N818  what it says is no error of the program
    """Nothing more can be checked; its text is the last finding."""


def until_not_yet(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, the last of which is what stopped the check, if something did."""
    try:
        yield from findings
    except NotYet as reason:
        yield not_yet(str(reason))


def is_solved(findings: Iterable[Finding]) -> bool:
    """Whether something is right and nothing is not."""
    grades = {finding.grade for finding in findings}
    return Grade.RIGHT in grades and Grade.NOT_YET not in grades
