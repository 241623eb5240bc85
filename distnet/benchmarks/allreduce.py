"""`python -m distnet.bench allreduce`: every wire format against plain MPI calls of the same bytes.

A reduction is what the trainer waits for after backward if nothing is hidden: numbers converted,
all buckets sent, received and read. Beside it stand the same without MPI (conversion, and for very
small vectors nothing but the Python around the calls) and one blocking MPI_Allreduce of the whole
vector, as float32 in the format's bytes. All start at a barrier, whose own time is subtracted.

Exact sums are measured in each way in which they can travel between these ranks. `link bytes` is
what the busiest host sends to others, with whatever else it sends meanwhile (0 but on Linux, which
counts it).

Last come whole training steps in each format, which take turns on the same ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from distnet.base.options import option, parse_options, with_default
from distnet.benchmarks.jobs import Result, run_ranks
from distnet.benchmarks.rounds import describe_machine
from distnet.benchmarks.scaling import COUNT, JOBS, RANK_WORKER, JobOptions

DEEP_CONVNET, LARGE, TINY = 123_552, 2_000_000, 100
TIMES = ("reduction", "without_mpi", "allreduce")


@dataclass(frozen=True)
class AllreduceOptions(JobOptions):
    """Measures every wire format against plain MPI calls of the same bytes."""

    ranks: tuple[int, ...] = with_default(JobOptions, "ranks", (2, 4))
    rounds: int = with_default(JobOptions, "rounds", 3)
    steps: int = with_default(JobOptions, "steps", 60)
    batch_size: int = with_default(JobOptions, "batch_size", 100)
    sizes: tuple[int, ...] = option(
        (TINY, DEEP_CONVNET, LARGE), "elements of a sum", group=JOBS, metavar="N", limits=COUNT
    )
    repeats: int = option(50, "sums of a child job", group=JOBS, metavar="N", limits=COUNT)


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code. Raises JobError."""
    options = parse_options(AllreduceOptions, argv, "python -m distnet.bench allreduce")
    launcher = options.launcher
    print(describe_machine())
    results = {
        f"{num_ranks} ranks, {size} elements": _formats(options, launcher, num_ranks, size)
        for num_ranks in options.ranks
        for size in options.sizes
    }
    steps = {n: _steps(options, launcher, n) for n in options.ranks}
    for title, rows in results.items():
        print_table(title, rows)
    for num_ranks, rows in steps.items():
        print_steps(f"{num_ranks} ranks, {options.model}, batch {options.batch_size}", rows)
    options.save(results=results, steps=steps)
    return 0


def _rounds(
    options: AllreduceOptions, launcher: Sequence[str], num_ranks: int, do: dict[str, Any]
) -> list[Result]:
    task = options.task | do
    return [run_ranks(launcher, num_ranks, RANK_WORKER, task) for _ in range(options.rounds)]


def _formats(
    options: AllreduceOptions, launcher: Sequence[str], num_ranks: int, size: int
) -> dict[str, dict[str, Any]]:
    rounds = _rounds(options, launcher, num_ranks, {"do": "formats", "size": size})
    return {kind: make_row([each[kind] for each in rounds]) for kind in rounds[0]}


def _steps(
    options: AllreduceOptions, launcher: Sequence[str], num_ranks: int
) -> dict[str, dict[str, Any]]:
    rounds = _rounds(options, launcher, num_ranks, {"do": "steps_of_formats"})
    seconds = {kind: [s for each in rounds for s in each[kind]] for kind in rounds[0]}
    return {kind: make_steps_row(seconds, kind, options.batch_size) for kind in seconds}


def make_steps_row(seconds: dict[str, list[float]], kind: str, batch_size: int) -> dict[str, float]:
    """Images per second of one format, and relative to float32: medians over the steps."""
    pairs = zip(seconds["float32"], seconds[kind], strict=True)
    return {
        "images_per_second": batch_size / median(seconds[kind]),
        "of_float32": median(float32 / own for float32, own in pairs),
    }


def make_row(rounds: Sequence[Result]) -> dict[str, Any]:
    """The medians over the rounds of one format, in seconds without the barrier."""
    row: dict[str, Any] = {key: rounds[0][key] for key in ("bytes", "exact")}
    row["link_bytes"] = median(each["link_bytes"] for each in rounds)
    for name in TIMES:
        row[name] = median(each[name] - each["barrier"] for each in rounds)
    return row


def print_table(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """One line for each format."""
    print(f"\n{title}")
    print(
        f"{'format':<18}same bits      bytes link bytes  reduction ms  without MPI ms  Allreduce ms"
    )
    for kind, row in rows.items():
        times = [f"{row[name] * 1e3:.3f}" for name in TIMES]
        says, link = "yes" if row["exact"] else "no", round(row["link_bytes"])
        print(
            f"{kind:<18}{says:>9}{row['bytes']:>11}{link:>11}"
            f"{times[0]:>14}{times[1]:>16}{times[2]:>14}"
        )


def print_steps(title: str, rows: dict[str, dict[str, float]]) -> None:
    """One line for each format."""
    print(f"\n{title}, whole steps")
    print("format     images/s  of float32")
    for kind, row in rows.items():
        print(f"{kind:<8}{row['images_per_second']:>11.0f}{row['of_float32']:>12.3f}")
