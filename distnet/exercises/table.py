"""The exercises by their number. A new one is its file, a line here, and a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from distnet.exercises import (
    allreduce,
    bit_flip,
    floats,
    killing,
    overlap,
    prediction,
    rare,
    straggler,
)
from distnet.exercises.finding import Finding


@dataclass(frozen=True)
class Exercise:
    """title: what is to be done; file: what is handed in, as the page calls it."""

    title: str
    file: str
    check: Callable[[Path], Iterator[Finding]]


EXERCISES = {
    1: Exercise("plug in your own all-reduce", "allreduce.py", allreduce.check),
    2: Exercise("watch the overlap, then break it", "overlap.py", overlap.check),
    3: Exercise("see the hash change with the ranks", "floats.py", floats.check),
    4: Exercise("kill a rank", "kill.py", killing.check),
    5: Exercise("help a slow rank", "dealing.py", straggler.check),
    6: Exercise("predict the time of a step, then measure it", "predict.py", prediction.check),
    7: Exercise("find a flipped bit", "flipped.py", bit_flip.check),
    8: Exercise("synchronise rarely", "rare.py", rare.check),
}
