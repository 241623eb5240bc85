"""A run from its first step, or the one it is resumed at, to its last.

What happens between the steps: evaluation and a line at the end of each epoch, checkpoints, the
files of the run directory. All ranks go through the same lines; rank 0 alone writes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distnet.parallel.failing import together
from distnet.training import checkpoint as checkpoints
from distnet.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_compatible,
    checkpoint_path,
)
from distnet.training.config import TrainConfig, to_toml
from distnet.training.evaluation import Evaluation, evaluate
from distnet.training.feed import Feed
from distnet.training.files import write_atomically
from distnet.training.metrics import (
    Metrics,
    Terminal,
    Throughput,
    clock_time,
    write_summary,
)
from distnet.training.trainer import StepResult, Trainer

DONE = 0
STOPPED_EARLY = 75  # EX_TEMPFAIL of sysexits.h: run again with --resume


@dataclass
class EpochAverage:
    """Training loss and accuracy over the steps since the last reset."""

    loss_sum: float = 0.0
    num_correct: int = 0
    num_samples: int = 0

    def add(self, result: StepResult) -> None:
        self.loss_sum += result.loss * result.num_samples
        self.num_correct += result.num_correct
        self.num_samples += result.num_samples

    @property
    def loss(self) -> float:
        return self.loss_sum / self.num_samples


class Run:
    """Trains for `total_steps` with finished parts and keeps the run directory.

    identity: what decides the results, and must be the same when the run is resumed.
    """

    def __init__(
        self,
        config: TrainConfig,
        trainer: Trainer,
        test_feed: Feed,
        *,
        total_steps: int,
        identity: Mapping[str, Any],
        fingerprint: Mapping[str, str],
    ) -> None:
        self.config, self.trainer, self.test_feed = config, trainer, test_feed
        self.total_steps, self.identity, self.fingerprint = total_steps, identity, fingerprint
        self.comm = trainer.comm
        self.writes = self.comm.rank == 0
        self.directory = config.out_dir / "checkpoints"
        self.terminal = Terminal(self.writes, config.progress, total_steps)
        self.average = EpochAverage()
        self.throughput = Throughput()
        self.evaluation: Evaluation | None = None

    def __call__(self) -> int:
        """Trains; returns the exit code."""
        started = time.perf_counter()
        first = self._resume() if self.config.resume else 0
        together(self.comm, lambda: self._open(first))
        last = min(self.config.stop_at or self.total_steps, self.total_steps)
        self._introduce(first)
        with self.terminal:
            for step in range(first, last):
                result = self.trainer.step(step)
                self._after(result, time.perf_counter() - started, is_last=step + 1 == last)
        if last < self.total_steps:
            self.terminal.say(f"stopped after step {last}; go on with --resume")
            return STOPPED_EARLY
        self._summarize(time.perf_counter() - started)
        return DONE

    def _after(self, result: StepResult, elapsed_seconds: float, is_last: bool) -> None:
        """Everything that follows a step."""
        config, done = self.config, result.step + 1
        self.throughput.step(result.num_samples)
        self.average.add(result)
        self.terminal.step(done, result.loss)
        if config.log_every and done % config.log_every == 0:
            self._write("train", done, loss=result.loss, lr=result.lr)
        with self.throughput.pause():
            epoch_ends = done % self.trainer.sampler.steps_per_epoch == 0
            if epoch_ends or done == self.total_steps:
                self._end_epoch(done, elapsed_seconds)
            every = config.checkpoint_every
            if is_last or (done % every == 0 if every else epoch_ends):
                self._save(done)

    def _end_epoch(self, done: int, elapsed_seconds: float) -> None:
        result = evaluate(
            self.trainer.network,
            self.test_feed,
            self.comm,
            min(self.config.micro_batch_size, len(self.test_feed.labels)),
        )
        epoch = done / self.trainer.sampler.steps_per_epoch
        self.terminal.row(
            f"{epoch:g}" if epoch == int(epoch) else f"{epoch:.2f}",
            str(done),
            f"{self.average.loss:.4f}",
            f"{result.loss:.4f}",
            f"{result.accuracy:.2%}",
            f"{self.throughput.images_per_second:.0f}",
            clock_time(elapsed_seconds),
        )
        self._write(
            "epoch",
            done,
            epoch=epoch,
            train_loss=self.average.loss,
            train_accuracy=self.average.num_correct / self.average.num_samples,
            test_loss=result.loss,
            test_accuracy=result.accuracy,
            images_per_second=self.throughput.images_per_second,
        )
        self.evaluation, self.train_loss = result, self.average.loss
        self.average = EpochAverage()

    def _write(self, event: str, step: int, **values: object) -> None:
        if self.writes:
            self.metrics.write(event, step, **values)

    # The run directory.

    def _open(self, first: int) -> None:
        if self.writes:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_atomically(self.config.out_dir / "config.toml", to_toml(self.config).encode())
            self.metrics = Metrics(self.config.out_dir / "metrics.jsonl", first)

    def _snapshot(self, step: int) -> Checkpoint:
        network = self.trainer.network
        return Checkpoint(
            step,
            params=network.named_values(),
            optimizer=self.trainer.optimizer.state,
            statistics=network.named_statistics(),
            config=self.identity,
            fingerprint=self.fingerprint,
        )

    def _save(self, step: int) -> None:
        if self.writes:
            checkpoints.save(checkpoint_path(self.directory, step), self._snapshot(step))
            checkpoints.prune(self.directory, self.config.keep, step)
            self.metrics.write("checkpoint", step)

    def _resume(self) -> int:
        """Takes the state of a checkpoint; returns the number of steps that it has behind it."""
        found, warnings = together(self.comm, self._find_checkpoint)
        for warning in warnings:
            self.terminal.warn(warning)
        self.trainer.restore(found)
        return found.step

    def _find_checkpoint(self) -> tuple[Checkpoint, list[str]]:
        warnings: list[str] = []
        if self.config.resume == "latest":
            newest = checkpoints.latest(self.directory)
            if newest.checkpoint is None:
                problems = "; ".join(newest.warnings) or "found no checkpoint"
                raise CheckpointError(f"{self.directory}: {problems}, expected one to go on from")
            found, warnings = newest.checkpoint, newest.warnings
        else:
            found = checkpoints.load(Path(self.config.resume))
        check_compatible(found, self._snapshot(found.step))
        return found, warnings

    # What is said at the start and at the end.

    def _introduce(self, first: int) -> None:
        config, comm, network = self.config, self.comm, self.trainer.network
        start = f"resumed at step {first}" if first else "from scratch"
        self.terminal.say(
            f"distnet: {config.model} ({network.values.size:,} parameters) on {config.data} "
            f"({len(self.trainer.feed.labels):,} training samples), {start}"
        )
        self.terminal.say(
            f"ranks {comm.size} on {comm.node.count} host(s), batch {config.batch_size} in "
            f"micro-batches of {config.micro_batch_size}, {self.total_steps} steps, "
            f"reduction {config.reduction}, results in {config.out_dir}"
        )
        if not self.trainer.reducer.exact:
            self.terminal.warn(
                f"reduction {config.reduction}: the result depends on the number of ranks"
            )
        self.terminal.header()

    def _summarize(self, wall_seconds: float) -> None:
        if not self.writes or self.evaluation is None:
            return
        config, network = self.config, self.trainer.network
        values = network.values.astype("<f4", copy=False)
        path = config.out_dir / "summary.json"
        write_summary(
            path,
            {
                "model": config.model,
                "data": config.data,
                "ranks": self.comm.size,
                "epochs": self.total_steps / self.trainer.sampler.steps_per_epoch,
                "steps": self.total_steps,
                "batch_size": config.batch_size,
                "micro_batch_size": config.micro_batch_size,
                "seed": config.seed,
                "reduction": config.reduction,
                "test_accuracy": self.evaluation.accuracy,
                "test_loss": self.evaluation.loss,
                "train_loss": self.train_loss,
                "images_per_second": self.throughput.images_per_second,
                "wall_seconds": wall_seconds,
                "params_sha256": hashlib.sha256(values.tobytes()).hexdigest(),
                "fingerprint": dict(self.fingerprint),
            },
        )
        self.metrics.close()
        self.terminal.say(
            f"test accuracy {self.evaluation.accuracy:.2%} after {self.total_steps} steps; "
            f"summary in {path}"
        )
