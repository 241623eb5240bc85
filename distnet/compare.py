"""`distnet compare A B`: where do two runs part, and why?

Exit codes: 0 the same bits after every step of which both have a checkpoint, 1 they differ, 2 wrong
usage or input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distnet.base.options import argument, option, parse_options
from distnet.training.comparison import Comparison, compare

NUM_SHOWN = 5  # arrays, of those that differ


@dataclass(frozen=True)
class CompareOptions:
    """Finds the first step, array and element in which two runs differ, and the likely cause."""

    one: str = argument("directory of a run, or a checkpoint", "A", path=True)
    other: str = argument("another one", "B", path=True)
    json: bool = option(False, "JSON in place of lines", group="output")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    try:
        options = parse_options(CompareOptions, argv, "distnet compare")
        found = compare(Path(options.one), Path(options.other))
    except (ValueError, OSError) as error:
        print(f"distnet: error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(found), indent=2) if options.json else "\n".join(lines(found)))
    return 0 if found.parted is None else 1


def lines(found: Comparison) -> Iterator[str]:
    """What is said of a comparison."""
    steps = found.steps
    compared = f"{len(steps)} steps of {steps[0]} to {steps[-1]}" if len(steps) > 1 else "one step"
    if found.parted is None:
        yield f"the same bits after step {steps[-1]} ({compared} compared)"
        yield from (f"although they differ in {cause}" for cause in found.causes)
        return
    before = max((step for step in steps if step < found.parted), default=None)
    same = f"the same after step {before}, different" if before is not None else "different"
    yield f"{same} after step {found.parted} ({compared} in both)"
    yield from map(str, found.arrays[:NUM_SHOWN])
    if len(found.arrays) > NUM_SHOWN:
        yield f"and {len(found.arrays) - NUM_SHOWN} arrays more"
    yield from (f"likely cause: {cause}" for cause in found.causes)
    if not found.causes:
        yield (
            "configuration, data and kernels are the same: memory that failed, other code, or "
            "another number of ranks where an inexact sum was used"
        )
