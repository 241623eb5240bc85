"""`python -m distnet.bench plan`: what messages cost here, and whether `distnet plan` comes true.

First two ranks exchange messages of many sizes, and one rank takes steps alone: that is all that
the plan gets to know. Then ranks take steps in each mode, whose computing is sleep and whose
exchange of gradients is the real one, and every step is held against what was predicted.

With `--toml` what was measured of the network goes to a file for `distnet plan --config`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from distnet.base.files import write_atomically
from distnet.base.options import option, parse_options
from distnet.benchmarks.jobs import find_mpirun, run_ranks
from distnet.benchmarks.plan_worker import ISLANDS, window_of
from distnet.benchmarks.rounds import describe_machine
from distnet.parallel import REDUCTIONS
from distnet.planning.links import Link
from distnet.planning.model import Cluster, Way, Workload, predict

WORKER = "distnet.benchmarks.plan_worker"
SIZES = (8, 1024, 4096, 8192, 16384, 32768, 65536, 262144, 1 << 20, 1 << 21)
MODES = (*REDUCTIONS, "local")
STEPS, JOBS, FILES = "steps that sleep", "measurement", "files"
COUNT = {">=": 1, "<=": 1_000_000}


@dataclass(frozen=True)
class PlanBenchOptions:
    """Measures what messages cost between hosts, and holds predicted steps against real ones."""

    ranks: tuple[int, ...] = option(
        (1, 2, 4), "numbers of ranks, each on a host", group=JOBS, metavar="N", limits=COUNT
    )
    ranks_per_host: int = option(
        1, "how many of them share a host", group=JOBS, metavar="N", limits=COUNT
    )
    mpirun: str = option(
        "",
        'command that starts ranks, such as "mpirun -hosts a,b" (default: that of this Python)',
        group=JOBS,
        metavar="COMMAND",
    )
    repeats: int = option(15, "of an exchange", group=JOBS, metavar="N", limits=COUNT)
    steps: int = option(6, "of a turn", group=JOBS, metavar="N", limits=COUNT)
    turns: int = option(5, "of each mode", group=JOBS, metavar="N", limits=COUNT)
    modes: tuple[str, ...] = option(
        ("exact", "exact32", "local"), "ways to come to one state", group=STEPS, choices=MODES
    )
    parameters: tuple[int, ...] = option(
        (123_552, 500_000), "numbers that are summed", group=STEPS, metavar="N", limits=COUNT
    )
    micro_batches: int = option(8, "of a step", group=STEPS, metavar="N", limits=COUNT)
    micro_batch_seconds: float = option(
        0.01, "that one takes", group=STEPS, metavar="SECONDS", limits={">": 0, "<=": 60}
    )
    deviation: float = option(
        0.1, "of that, as a part of it", group=STEPS, metavar="X", limits={">=": 0, "<=": 10}
    )
    sync_every: int = option(20, "of mode local", group=STEPS, metavar="STEPS", limits=COUNT)
    toml: str = option(
        "", "for `distnet plan --config`: the network", group=FILES, metavar="FILE", path=True
    )
    json: str = option("", "all figures", group=FILES, metavar="FILE", path=True)

    @property
    def launcher(self) -> list[str]:
        """The words of the command that starts ranks; raises JobError if there is none."""
        return shlex.split(self.mpirun) or [find_mpirun()]


@dataclass(frozen=True)
class Case:
    """A step as it was predicted and as it was, in seconds."""

    num_ranks: int
    mode: str
    parameters: int
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code. Raises JobError."""
    options = parse_options(PlanBenchOptions, argv, "python -m distnet.bench plan")
    print(describe_machine())
    seconds = run(options, 2, "messages")["seconds"]  # on two hosts, if there are two
    link = Link.measured(SIZES, seconds)
    print(f"sums of two ranks: {told(seconds)}")
    if options.toml:
        write_atomically(Path(options.toml), toml_of(seconds).encode())
    alone = run(options, 1, "steps")
    cases = []
    for num_ranks in options.ranks:
        found = alone if num_ranks == 1 else run(options, num_ranks, "steps")
        cases += [case_of(options, link, alone, num_ranks, *each) for each in found["seconds"]]
    print("\n".join(lines(cases)))
    if options.json:
        figures = [asdict(case) | {"error": case.error} for case in cases]
        whole = {"options": asdict(options), "link": asdict(link), "alone": alone, "cases": figures}
        text = json.dumps(whole | {"machine": describe_machine()}, indent=2)
        Path(options.json).write_text(text + "\n")
    return 0


def run(options: PlanBenchOptions, num_ranks: int, do: str) -> dict[str, Any]:
    """A task on so many ranks."""
    task = asdict(options) | {"do": do, "sizes": SIZES}
    return run_ranks(options.launcher, num_ranks, WORKER, task)


def told(seconds: Sequence[float]) -> str:
    """What sums take, by their bytes, in a line."""
    pairs = zip(SIZES, seconds, strict=True)
    return ", ".join(f"{size} bytes {each * 1e3:.3g} ms" for size, each in pairs)


def toml_of(seconds: Sequence[float]) -> str:
    """Options of `distnet plan`."""
    rounded = [float(f"{each:.6g}") for each in seconds]
    return (
        "# What a sum of two ranks took, by its bytes: for distnet plan --config\n"
        f"message_bytes = {list(SIZES)}\nmessage_seconds = {rounded}\n"
    )


def case_of(
    options: PlanBenchOptions,
    link: Link,
    alone: Mapping[str, Any],
    num_ranks: int,
    mode: str,
    parameters: int,
    measured: float,
) -> Case:
    """What was predicted from a step of one rank alone, beside what was measured."""
    per_rank = {(each[0], each[1]): each[2] for each in alone["alone"]}[mode, parameters]
    local = mode == "local"
    seconds = alone["micro_batch_seconds"]
    workload = Workload(
        parameters,
        options.micro_batches,
        1,
        seconds,
        alone["deviation"],
        step_seconds=per_rank / ISLANDS if local else per_rank,
        window_seconds=window_of(seconds),
    )
    way = Way("exact" if local else mode, ISLANDS if local else 0, options.sync_every)
    per_host = min(options.ranks_per_host, num_ranks)
    step = predict(workload, way, Cluster(num_ranks // per_host, per_host, link))
    return Case(num_ranks, mode, parameters, step.seconds, measured)


def lines(cases: Sequence[Case]) -> Iterator[str]:
    """A table, and how far predictions are off."""
    yield "ranks  mode      parameters  predicted ms  measured ms    error"
    for case in cases:
        yield (
            f"{case.num_ranks:>5}  {case.mode:<8}{case.parameters:>12}{case.predicted * 1e3:>14.1f}"
            f"{case.measured * 1e3:>13.1f}{case.error:>+9.1%}"
        )
    if together := [abs(case.error) for case in cases if case.num_ranks > 1]:
        yield (
            f"median error {median(together):.1%}, largest {max(together):.1%}, of "
            f"{len(together)} cases of several ranks"
        )
