"""How fast a run is, and how its work is spread over the ranks: images a second, who waits."""

from __future__ import annotations

from dataclasses import dataclass

from distnet.training.record import Metrics
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult
from distnet.training.watching.workload import WorkloadMeter


@dataclass
class _Work:
    """Images and the seconds that they took."""

    images: int = 0
    seconds: float = 0.0


class Throughput:
    """Images per second in steady state: of steps alone, and without the first ones.

    `num_warmup_steps` steps are not counted, unless there are no others.
    """

    def __init__(self, num_warmup_steps: int = 10) -> None:
        self._num_to_skip = num_warmup_steps
        self._warmup, self._steady = _Work(), _Work()

    def step(self, num_images: int, seconds: float) -> None:
        """A step took so long."""
        work = self._warmup if self._num_to_skip else self._steady
        work.images += num_images
        work.seconds += seconds
        self._num_to_skip = max(self._num_to_skip - 1, 0)

    @property
    def images_per_second(self) -> float:
        """0 before the first step."""
        work = self._steady if self._steady.images else self._warmup
        return work.images / work.seconds if work.seconds else 0.0


class Performance(Callback):
    """Measures steps, and adds the ranks' figures to `run.figures` at each evaluation.

    balances: whether micro-batches are dealt by the speeds of the ranks from then on.
    """

    def __init__(self, balances: bool = False) -> None:
        self.balances = balances
        self.throughput, self._meter = Throughput(), WorkloadMeter()

    def stepped(self, run: Run, result: StepResult) -> None:
        self.throughput.step(result.num_samples, result.own.seconds)
        self._meter.step(result.own)

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        workload = self._meter.gather(run.comm)
        if self.balances:
            run.trainer.speeds = workload.speeds(run.trainer.speeds)
        run.figures |= {
            "images_per_second": self.throughput.images_per_second,
            "wait_share": workload.wait_share,
            "bytes_per_step": workload.bytes_per_step,
            "slowest_rank": workload.slowest,
            "compute_seconds": [rank.compute_seconds for rank in workload.ranks],
            "compute_deviation": [rank.compute_deviation for rank in workload.ranks],
            "micro_batches": [rank.num_micro_batches for rank in workload.ranks],
        }
