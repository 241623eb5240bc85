"""`distnet classroom` lists the exercises; `distnet classroom check N [FILE]` tells what is right.

Exit codes: 0 solved, 1 not yet, 2 wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distnet.base.command import one_line
from distnet.base.options import ConfigError, argument, parse_options, shown
from distnet.base.output import write_now
from distnet.base.tables import aligned
from distnet.benchmarks.jobs import JobError
from distnet.exercises.finding import Finding, Grade, is_solved
from distnet.exercises.table import EXERCISES, Exercise

SOLVED, NOT_YET = 0, 1


@dataclass(frozen=True)
class ListOptions:
    """Lists the exercises; "distnet classroom check N" tells whether yours is right."""


@dataclass(frozen=True)
class CheckOptions:
    """Tells what is right in your solution of an exercise, and what is not yet."""

    number: str = argument("number of the exercise, as in the list", "N")
    file: str = argument(
        "your solution (default: the file of that name in the list, in this directory)",
        "FILE",
        path=True,
        optional=True,
    )


@one_line(ValueError, OSError, JobError)
def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if argv[:1] != ["check"]:
        parse_options(ListOptions, argv, "distnet classroom")
        write_now(sys.stdout, "\n".join(table()) + "\n")
        return SOLVED
    options = parse_options(CheckOptions, argv[1:], "distnet classroom check")
    number, exercise = _chosen(options.number)
    return _check(number, exercise, Path(options.file or exercise.file))


def _chosen(text: str) -> tuple[int, Exercise]:
    """The exercise that is meant; raises ConfigError."""
    number = int(text) if text.isdecimal() else 0
    if number not in EXERCISES:
        raise ConfigError(
            f"found no exercise {shown(text)}, expected one of "
            f"{', '.join(map(str, EXERCISES))}; distnet classroom lists them"
        )
    return number, EXERCISES[number]


def table() -> list[str]:
    """A line for each exercise, and what to do with them."""
    rows = [("", "exercise", "your file")]
    rows += [(str(number), each.title, each.file) for number, each in EXERCISES.items()]
    return [
        *(line.rstrip() for line in aligned(rows, left=3)),
        "",
        "The pages, and files to begin with, are in docs/classroom of the repository.",
        "distnet classroom check N [FILE] tells what is right and what is not yet.",
    ]


def _check(number: int, exercise: Exercise, file: Path) -> int:
    write_now(sys.stdout, f"exercise {number}, {exercise.title}: {file}\n")
    found = []
    for finding in exercise.check(file):
        found.append(finding)
        write_now(sys.stdout, "\n".join(_lines(finding)) + "\n")
    write_now(sys.stdout, verdict(found) + "\n")
    return SOLVED if is_solved(found) else NOT_YET


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{finding.grade:<7}  {finding.text}"


def verdict(found: Sequence[Finding]) -> str:
    """The last line."""
    if is_solved(found):
        return "solved"
    num_right = sum(each.grade == Grade.RIGHT for each in found)
    return f"not solved yet; right so far: {num_right}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
