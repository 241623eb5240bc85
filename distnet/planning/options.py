"""What `distnet plan` computes from: flags, or a TOML file that a benchmark has written."""

from __future__ import annotations

from dataclasses import dataclass

from distnet.base.options import argument, option, with_default
from distnet.parallel import CHANGES, REDUCTIONS
from distnet.planning.links import ALGORITHMS
from distnet.training import options as training

WHAT, COMPUTING, RANKS = "what is trained", "computing", "ranks"
NETWORK, FAILURES, OUTPUT = "network between hosts", "failures and cost", "output"
COUNT = {">=": 0, "<=": 1_000_000_000}
SAMPLES = training.COUNT | {">=": 0}
SECONDS = {">=": 0, "<=": 1e9}
POWERS = tuple(2**k for k in range(13))


@dataclass(frozen=True)
class PlanOptions:
    """Predicts how training goes on up to 4096 ranks: time, bytes, memory, cost, and what helps.

    What is 0 and can be read from a run is taken from the runs.
    """

    runs: tuple[str, ...] = argument(
        "directories of runs that were measured, of one network and batch; two with different "
        "numbers of ranks tell what of a step is not shared out",
        "RUN",
        several=True,
        path=True,
        optional=True,
    )
    parameters: int = option(0, "numbers that are trained", group=WHAT, metavar="N", limits=COUNT)
    optimizer_vectors: int = option(
        2, "vectors that the optimizer keeps", group=WHAT, metavar="N", limits={">=": 0, "<=": 9}
    )
    batch_size: int = option(
        0, "samples per step, over all ranks", group=WHAT, metavar="N", limits=SAMPLES
    )
    micro_batch_size: int = option(
        0, "samples per gradient computation", group=WHAT, metavar="N", limits=SAMPLES
    )
    grow_batch: bool = option(
        False, "the batch grows with the ranks, from what it is on one", group=WHAT
    )
    steps: int = option(
        0, "length of the run, for its time and cost", group=WHAT, metavar="N", limits=COUNT
    )
    micro_batch_seconds: float = option(
        0.0, "time of a micro-batch", group=COMPUTING, metavar="SECONDS", limits=SECONDS
    )
    deviation: float = option(
        0.0,
        "its standard deviation, as a part of it",
        group=COMPUTING,
        metavar="X",
        limits={">=": 0, "<=": 100},
    )
    step_seconds: float = option(
        0.0,
        "what every rank does once a step, such as the update",
        group=COMPUTING,
        metavar="SECONDS",
        limits=SECONDS,
    )
    window_seconds: float = option(
        -1.0,
        "from the first final gradients of a micro-batch to its end, behind which messages can "
        "hide; -1: half of it",
        group=COMPUTING,
        metavar="SECONDS",
        limits={">=": -1, "<=": 1e9},
    )
    ranks: tuple[int, ...] = option(
        POWERS, "numbers of ranks", group=RANKS, metavar="N", limits={">=": 1, "<=": 4096}
    )
    ranks_per_host: int = option(
        1, "ranks of a host", group=RANKS, metavar="N", limits={">=": 1, "<=": 4096}
    )
    reduction: str = option("exact", "gradient sum", group=RANKS, choices=REDUCTIONS)
    sync: str = option(
        "step", "when ranks come to one state", group=RANKS, choices=("step", "local")
    )
    islands: int = option(
        4, "of --sync local", group=RANKS, metavar="N", limits={">=": 1, "<=": 1024}
    )
    sync_every: int = option(
        50, "of --sync local", group=RANKS, metavar="STEPS", limits={">=": 1, "<=": 1_000_000}
    )
    sync_reduction: str = option("exact8", "of --sync local", group=RANKS, choices=CHANGES)
    shard_optimizer: bool = option(
        False, "each rank keeps its share of the optimizer's vectors alone", group=RANKS
    )
    bucket_bytes: int = with_default(training.TrainOptions, "bucket_bytes", 0)
    algorithm: str = option("mpich", "how MPI adds up over hosts", group=RANKS, choices=ALGORITHMS)
    bandwidth: float = option(
        1000.0, "of a host, in Mbit/s", group=NETWORK, metavar="MBIT", limits={">": 0, "<=": 1e7}
    )
    latency: float = option(
        0.1, "one way, in ms", group=NETWORK, metavar="MS", limits={">=": 0, "<=": 1e5}
    )
    message_bytes: tuple[int, ...] = option(
        (0,),
        "sizes of sums over two hosts that were timed, in place of the two above",
        group=NETWORK,
        metavar="BYTES",
        limits=COUNT,
    )
    message_seconds: tuple[float, ...] = option(
        (0.0,), "and their times", group=NETWORK, metavar="SECONDS", limits=SECONDS
    )
    mtbf_hours: float = option(
        0.0,
        "mean time between failures of a host; 0: none fails",
        group=FAILURES,
        metavar="HOURS",
        limits=SECONDS,
    )
    restart_seconds: float = option(
        60.0, "until a job that has ended goes on", group=FAILURES, metavar="S", limits=SECONDS
    )
    repair_seconds: float = option(
        0.1, "until the others go on, live", group=FAILURES, metavar="S", limits=SECONDS
    )
    checkpoint_seconds: float = option(
        0.1, "for which a checkpoint holds up steps", group=FAILURES, metavar="S", limits=SECONDS
    )
    checkpoint_interval: float = option(
        0.0, "seconds between checkpoints; 0: the best", group=FAILURES, metavar="S", limits=SECONDS
    )
    price: float = option(0.0, "of a host for an hour", group=FAILURES, metavar="X", limits=SECONDS)
    simulate: int = option(
        0,
        "play so many steps with stragglers and failures, on the largest number of ranks; 0: not",
        group=FAILURES,
        metavar="STEPS",
        limits={">=": 0, "<=": 1_000_000},
    )
    straggler_share: float = option(
        0.0,
        "how often a rank is slow in a step",
        group=FAILURES,
        metavar="X",
        limits={">=": 0, "<=": 1},
    )
    straggler_factor: float = option(
        5.0, "how slow", group=FAILURES, metavar="X", limits={">=": 1, "<=": 1e6}
    )
    seed: int = option(
        0, "of what is played", group=FAILURES, metavar="N", limits={">=": 0, "<=": 2**62}
    )
    html: str = option(
        "", "write a page with the curves", group=OUTPUT, metavar="FILE.html", path=True
    )
    overwrite: bool = option(False, "replace a page that is there", group=OUTPUT)
    json: bool = option(False, "JSON in place of lines", group=OUTPUT)
