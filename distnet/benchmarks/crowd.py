"""`python -m distnet.bench crowd`: many ranks on one host: their memory, their start, their bits.

Runs the training command on 1, 16, 32, 64 ranks, with a small network, one micro-batch a rank and
step at the most ranks. *Memory* is the proportional set size of all ranks together, which counts
what they share once (on Linux, or else "?"); of a *further rank*, what each one adds to that of the
first. *Start* is the time from the call of `mpirun` until the first step is complete; with the
processor seconds of all ranks until then, which on a busy machine say more.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from distnet.base.options import option, parse_options, with_default
from distnet.benchmarks.jobs import Result, run_ranks
from distnet.benchmarks.rounds import describe_machine
from distnet.benchmarks.scaling import RUN, JobOptions
from distnet.models import MODELS

WORKER = "distnet.benchmarks.crowd_worker"


@dataclass(frozen=True)
class CrowdOptions(JobOptions):
    """Measures memory and start of many ranks on one host, and whether their bits are the same."""

    ranks: tuple[int, ...] = with_default(JobOptions, "ranks", (1, 16, 32, 64))
    rounds: int = with_default(JobOptions, "rounds", 1)
    steps: int = with_default(JobOptions, "steps", 5)
    batch_size: int = with_default(JobOptions, "batch_size", 128)
    micro_batch_size: int = with_default(JobOptions, "micro_batch_size", 2)
    model: str = option("two_layer", "network", group=RUN, choices=MODELS)


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code: 1 if the bits are not the same. Raises JobError."""
    options = parse_options(CrowdOptions, argv, "python -m distnet.bench crowd")
    print(describe_machine())
    sizes = f"batch {options.batch_size} in micro-batches of {options.micro_batch_size}"
    print(f"\n{options.model}, {sizes}, {options.steps} steps")
    print("ranks   memory MB   further rank MB   start s   processor s   a rank   parameters")
    jobs: dict[int, list[Result]] = {}
    for num_ranks in options.ranks:
        jobs[num_ranks] = [_run(options, num_ranks) for _ in range(options.rounds)]
        row = make_row(jobs, num_ranks)
        is_known = row["memory"] > 0  # on Linux
        memory = f"{row['memory'] / 1e6:.0f}" if is_known else "?"
        further = f"{row['further'] / 1e6:.1f}" if is_known else "?"
        print(
            f"{num_ranks:>5}{memory:>12}{further:>18}"
            f"{row['start']:>10.1f}{row['processor']:>14.1f}"
            f"{row['processor'] / num_ranks:>9.2f}   {jobs[num_ranks][0]['sha256'][:12]}",
            flush=True,
        )
    options.save(jobs=jobs)
    return int(len({each["sha256"] for some in jobs.values() for each in some}) > 1)


def _run(options: CrowdOptions, num_ranks: int) -> Result:
    flags = ["--model", options.model, "--steps", str(options.steps), "--no-progress", "--quiet"]
    for name in ("batch_size", "micro_batch_size"):
        flags += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    with tempfile.TemporaryDirectory() as out:
        task = {"flags": [*flags, "--out", out], "began": time.time()}
        return run_ranks(options.launcher, num_ranks, WORKER, task)


def make_row(jobs: dict[int, list[Result]], num_ranks: int) -> dict[str, float]:
    """The best of all rounds: bytes and seconds."""

    def best(name: str, rounds: Sequence[Result]) -> float:
        return min(each[name] for each in rounds)

    fewest = min(jobs)
    row = {name: best(name, jobs[num_ranks]) for name in ("memory", "start", "processor")}
    added = row["memory"] - best("memory", jobs[fewest])
    return row | {"further": added / (num_ranks - fewest) if num_ranks > fewest else 0.0}
