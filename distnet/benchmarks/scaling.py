"""`python -m distnet.bench scaling`: throughput on 1, 2, 4 ... ranks, and what it is held against.

Child jobs take turns, so that a change of the machine hits all alike: a run on N ranks; N
independent runs at the same time, which is what the machine could do without communication; and,
with PyTorch installed, its DistributedDataParallel on gloo. Ratios are medians over the rounds.
`docs/scaling.md` explains the columns.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from distnet.base.options import option, parse_options
from distnet.benchmarks.jobs import Result, find_mpirun, run_group, run_ranks
from distnet.benchmarks.networks import CASES
from distnet.benchmarks.rounds import describe_machine
from distnet.parallel import REDUCTIONS
from distnet.training.config import TrainConfig, default_micro_batch_size

RANK_WORKER, DDP_WORKER = "distnet.benchmarks.rank_worker", "distnet.benchmarks.ddp_worker"
LAYOUTS = {"NCHW": False, "channels_last": True}
NOTHING_SECONDS = 1e-4  # to hide: less than the noise of a step
Round = dict[str, Result]  # by name of the child job


RUN, JOBS = "what is trained", "measurement"
COUNT = {">=": 1, "<=": 1_000_000}


@dataclass(frozen=True)
class JobOptions:
    """What the benchmarks of several ranks share."""

    ranks: tuple[int, ...] = option(
        (1, 2, 4), "numbers of ranks", group=JOBS, metavar="N", limits=COUNT
    )
    rounds: int = option(5, "turns of each child job", group=JOBS, metavar="N", limits=COUNT)
    mpirun: str = option(
        "",
        'command that starts ranks, such as "mpirun -hosts a,b" (default: that of this Python)',
        group=JOBS,
        metavar="COMMAND",
    )
    json: str = option(
        "", "also write all figures to this file", group=JOBS, metavar="FILE", path=True
    )
    steps: int = option(40, "measured steps of a child job", group=JOBS, metavar="N", limits=COUNT)
    warmups: int = option(5, "steps before these", group=JOBS, metavar="N", limits=COUNT)
    turn: int = option(5, "steps of each contender in a row", group=JOBS, metavar="N", limits=COUNT)
    model: str = option("deep_convnet", "network", group=RUN, choices=CASES)
    batch_size: int = option(256, "global batch", group=RUN, metavar="N", limits=COUNT)
    micro_batch_size: int = option(
        0, "0: that of the training command", group=RUN, metavar="N", limits={">=": 0, "<=": 10**6}
    )
    bucket_bytes: int = option(
        TrainConfig.bucket_bytes,
        "gradient bytes that ranks add up at a time; 0: that of the training command",
        group=RUN,
        metavar="BYTES",
        limits={">=": 0, "<=": 1 << 30},
    )

    def __post_init__(self) -> None:
        size = self.micro_batch_size or default_micro_batch_size(self.batch_size)
        object.__setattr__(self, "micro_batch_size", size)

    @property
    def launcher(self) -> list[str]:
        """The words of the command that starts ranks; raises JobError if there is none."""
        return shlex.split(self.mpirun) or [find_mpirun()]

    @property
    def task(self) -> dict[str, int | str]:
        """The options as a child job gets them."""
        return {key: value for key, value in asdict(self).items() if type(value) in (int, str)}

    def save(self, **figures: Any) -> None:
        """Writes the figures, with options and machine, to the file of `--json`."""
        if self.json:
            result = {"options": asdict(self), "machine": describe_machine(), **figures}
            Path(self.json).write_text(json.dumps(result, indent=2) + "\n")


@dataclass(frozen=True)
class ScalingOptions(JobOptions):
    """Measures throughput on ranks against independent runs and PyTorch's DDP."""

    reduction: str = option(TrainConfig.reduction, "gradient sum", group=RUN, choices=REDUCTIONS)
    ddp: bool = option(True, "PyTorch's DistributedDataParallel, if it is there", group=JOBS)


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code. Raises JobError."""
    options = parse_options(ScalingOptions, argv, "python -m distnet.bench scaling")
    launcher = options.launcher
    print(describe_machine())
    rounds = [_play_round(options, launcher, n) for n in range(options.rounds)]
    rows = [make_row(rounds, num_ranks) for num_ranks in options.ranks]
    print(f"\n{options.model}, global batch {options.batch_size}, {options.reduction}")
    print_table(rows)
    options.save(rows=rows, rounds=rounds)
    return 0


def _play_round(options: ScalingOptions, launcher: Sequence[str], number: int) -> Round:
    """One of each child job, in turn; every other round in reverse."""
    jobs = _jobs(options, launcher)
    names = list(jobs) if number % 2 == 0 else list(jobs)[::-1]
    print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return {name: jobs[name]() for name in names}


def _jobs(options: ScalingOptions, launcher: Sequence[str]) -> dict[str, Callable[[], Result]]:
    task = options.task
    has_torch = importlib.util.find_spec("torch") is not None and options.ddp
    jobs: dict[str, Callable[[], Result]] = {}

    def on_ranks(num_ranks: int, kind: str) -> Callable[[], Result]:
        return lambda: run_ranks(launcher, num_ranks, RANK_WORKER, task | {"do": kind})

    def ddp(num_ranks: int, layout: str) -> Callable[[], Result]:
        own = task | {"channels_last": LAYOUTS[layout]}
        return lambda: run_group(num_ranks, DDP_WORKER, own)

    for num_ranks in dict.fromkeys([1, *options.ranks]):
        jobs[f"ranks {num_ranks}"] = on_ranks(num_ranks, "ranks")
        jobs[f"copies {num_ranks}"] = on_ranks(num_ranks, "copies")
        for layout in LAYOUTS if has_torch and options.batch_size % num_ranks == 0 else ():
            jobs[f"ddp {num_ranks} {layout}"] = ddp(num_ranks, layout)
    return jobs


def make_row(rounds: Sequence[Round], num_ranks: int) -> dict[str, Any]:
    """The medians over the rounds for one number of ranks; shares between 0 and 1."""

    def middle(value: Callable[[Round], float]) -> float:
        return median(value(each) for each in rounds)

    def rate(each: Round, name: str) -> float:
        return each[name]["images_per_second"]

    own = f"ranks {num_ranks}"
    row: dict[str, Any] = {
        "ranks": num_ranks,
        "images_per_second": middle(lambda each: rate(each, own)),
        "of_one_rank": middle(lambda each: rate(each, own) / rate(each, "ranks 1") / num_ranks),
        "of_copies": middle(lambda each: rate(each, own) / rate(each, f"copies {num_ranks}")),
        "wait_share": middle(lambda each: each[own]["wait_share"]),
        "bytes_per_step": rounds[0][own]["bytes_per_step"],
        "allreduce_seconds": middle(lambda each: each[own]["allreduce_seconds"]),
    }
    for key in ("messages_seconds", "exposed_seconds", "hideable_seconds"):
        row[key] = middle(lambda each, key=key: communication(each[own])[key])  # type: ignore[misc]
    row["hidden_share"] = hidden_share(row)
    rivals = [name for name in rounds[0] if name.startswith(f"ddp {num_ranks} ")]
    if rivals:
        best = max(rivals, key=lambda name: middle(lambda each: rate(each, name)))
        row["ddp_layout"] = best.split()[-1]
        row["ddp_images_per_second"] = middle(lambda each: rate(each, best))
        row["of_ddp"] = middle(lambda each: rate(each, own) / rate(each, best))
    return row


def communication(result: Result) -> dict[str, float]:
    """Seconds of a step's messages: by themselves; added to the step; that could be hidden.

    Messages cost what a step takes more than the same one without them. They could hide behind what
    remains of backward when the first bucket leaves, all but the last bucket and the tally, which
    leave when there is nothing left to compute.
    """
    everything, last = result["messages_seconds"], result["last_message_seconds"]
    return {
        "messages_seconds": everything,
        "exposed_seconds": result["step_seconds"] - result["compute_seconds"],
        "hideable_seconds": max(0.0, min(everything - last, result["window_seconds"])),
    }


def hidden_share(row: dict[str, Any]) -> float | None:
    """Which part of what could be hidden is hidden; None if next to nothing could be."""
    if row["ranks"] == 1 or row["hideable_seconds"] < NOTHING_SECONDS:
        return None
    return (row["messages_seconds"] - row["exposed_seconds"]) / row["hideable_seconds"]


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "ranks": lambda row: str(row["ranks"]),
    "images/s": lambda row: f"{row['images_per_second']:.0f}",
    "of 1 rank": lambda row: f"{row['of_one_rank']:.3f}",
    "of copies": lambda row: f"{row['of_copies']:.3f}",
    "waiting": lambda row: f"{row['wait_share']:.1%}",
    "MB/step": lambda row: f"{row['bytes_per_step'] / 1e6:.3f}",
    "Allreduce ms": lambda row: f"{row['allreduce_seconds'] * 1e3:.3f}",
    "messages ms": lambda row: f"{row['messages_seconds'] * 1e3:.3f}",
    "exposed ms": lambda row: f"{row['exposed_seconds'] * 1e3:.3f}",
    "hideable ms": lambda row: f"{row['hideable_seconds'] * 1e3:.3f}",
    "hidden": lambda row: "" if row["hidden_share"] is None else f"{row['hidden_share']:.0%}",
    "DDP images/s": lambda row: f"{row['ddp_images_per_second']:.0f}" if "of_ddp" in row else "",
    "of DDP": lambda row: f"{row['of_ddp']:.2f}" if "of_ddp" in row else "",
}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line for each number of ranks."""
    names = [name for name in COLUMNS if "DDP" not in name or "of_ddp" in rows[0]]
    print("  ".join(names))
    for row in rows:
        print("  ".join(COLUMNS[name](row).rjust(len(name)) for name in names))
