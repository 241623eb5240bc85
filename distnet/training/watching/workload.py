"""How the work of an epoch was spread over the ranks: who computed how long, who waited, who sent.

Each rank measures its own steps; `gather` puts the ranks' figures together, once an epoch. The
speeds that follow from them say how micro-batches may be dealt next (`--balance`). Times differ
from run to run, but nothing here changes a bit of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from distnet.parallel.communicator import Communicator
from distnet.training.step.result import RankWork

FINENESS = 1000  # the speed of the fastest rank


@dataclass(frozen=True)
class Workload:
    """What all ranks did, in their order."""

    ranks: list[RankWork]

    @property
    def wait_share(self) -> float:
        """The part of all ranks' time in steps in which they waited for others, 0 to 1."""
        seconds = sum(rank.seconds for rank in self.ranks)
        return sum(rank.wait_seconds for rank in self.ranks) / seconds if seconds else 0.0

    @property
    def bytes_per_step(self) -> int:
        """What a rank handed to the others in a step, on average."""
        num_steps = sum(rank.num_steps for rank in self.ranks)
        return round(sum(rank.bytes_sent for rank in self.ranks) / num_steps) if num_steps else 0

    @property
    def slowest(self) -> int:
        """The rank that computed longest, for which the others waited."""
        return max(range(len(self.ranks)), key=lambda rank: self.ranks[rank].compute_seconds)

    def speeds(self, before: Sequence[int] | None) -> tuple[int, ...]:
        """Micro-batches in a given time, as whole numbers up to FINENESS, one for each rank.

        A rank that had none counts as twice as fast as `before`, or else as one of the fastest: it
        gets another chance, the later the slower it was.
        """
        measured = [rank.num_micro_batches / (rank.compute_seconds or 1) for rank in self.ranks]
        fastest = max(measured) or 1.0
        if before is None or len(before) != len(measured):
            before = [FINENESS] * len(measured)
        return tuple(
            max(1, round(FINENESS * speed / fastest)) if speed else min(2 * guess, FINENESS)
            for speed, guess in zip(measured, before, strict=True)
        )


@dataclass
class WorkloadMeter:
    """Adds up the steps of this rank since the last time that `gather` was followed by a step."""

    own: RankWork = field(default_factory=RankWork)
    is_told: bool = False

    def step(self, own: RankWork) -> None:
        """This rank has done so much in another step."""
        if self.is_told:
            self.own, self.is_told = RankWork(), False
        self.own.add(own)

    def gather(self, comm: Communicator) -> Workload:
        """The figures of all ranks; can be called again, until the next step."""
        workload = Workload(comm.allgather(self.own))
        self.is_told = True
        return workload
