"""`python -m distnet.bench audit`: what `--audit K` costs, beside the same steps without it.

Trainers that audit 0, 1, 2 ... of the M micro-batches of a step take turns on the same ranks. A
step computes M + K micro-batches, so it should take 1 + K/M of the work; the rest is the checks of
the sums. *Work* is what all ranks compute in a step together, without waiting. How much longer a
step takes depends on how M + K divides by the ranks as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from distnet.base.arrays import ceil_divide
from distnet.base.options import option, parse_options, with_default
from distnet.benchmarks.jobs import Result, run_ranks
from distnet.benchmarks.rounds import describe_machine
from distnet.benchmarks.scaling import JOBS, RANK_WORKER, JobOptions


@dataclass(frozen=True)
class AuditOptions(JobOptions):
    """Measures what it costs to have micro-batches computed by two ranks."""

    ranks: tuple[int, ...] = with_default(JobOptions, "ranks", (2,))
    rounds: int = with_default(JobOptions, "rounds", 3)
    audits: tuple[int, ...] = option(
        (1, 2, 4), "audited micro-batches", group=JOBS, metavar="K", limits={">=": 1, "<=": 1000}
    )


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code. Raises JobError."""
    options = parse_options(AuditOptions, argv, "python -m distnet.bench audit")
    print(describe_machine())
    num_micro_batches = ceil_divide(options.batch_size, options.micro_batch_size)
    tables = {}
    for num_ranks in options.ranks:
        task = options.task | {"do": "audits", "audits": (0, *options.audits)}
        rounds = [
            run_ranks(options.launcher, num_ranks, RANK_WORKER, task) for _ in range(options.rounds)
        ]
        tables[num_ranks] = rows = {k: make_row(rounds, k) for k in options.audits}
        print(f"\n{num_ranks} ranks, {options.model}, {num_micro_batches} micro-batches a step")
        print("audited   1 + K/M   work, of unaudited   step, of unaudited")
        for k, row in rows.items():
            audited = min(k, num_micro_batches)
            expected = 1 + audited / num_micro_batches
            print(f"{audited:>7}{expected:>10.3f}{row['work']:>21.3f}{row['step']:>21.3f}")
    options.save(tables=tables)
    return 0


def make_row(rounds: list[Result], k: int) -> dict[str, float]:
    """The medians, over all rounds, of a step that audits `k` by the step without beside it."""
    return {
        name: median(
            audited / unaudited
            for each in rounds
            for audited, unaudited in zip(each[str(k)][name], each["0"][name], strict=True)
        )
        for name in ("work", "step")
    }
