"""A run from its first step, or the one it is resumed at, to its last.

What happens between the steps: evaluation and a line at the end of each epoch, comparison of the
replicas, checkpoints, a wish to stop. All ranks go through the same lines; rank 0 alone writes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distnet.parallel.agreement import together
from distnet.parallel.communicator import Process
from distnet.parallel.watch import Watch
from distnet.training import checkpoint as checkpoints
from distnet.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_compatible,
    with_reduction_of,
)
from distnet.training.config import TrainConfig, to_toml
from distnet.training.evaluation import evaluate
from distnet.training.feed import Feed
from distnet.training.fingerprint import difference
from distnet.training.metrics import Terminal, Throughput, clock_time
from distnet.training.record import Progress
from distnet.training.run_directory import RunDirectory
from distnet.training.signals import StopSignals
from distnet.training.timeline import Timeline
from distnet.training.trainer import StepResult, Trainer
from distnet.training.workload import LoadMeter

# Exit codes, from sysexits.h where it has them.
DONE = 0
NOT_WRITTEN = 74  # EX_IOERR: computed, but the last checkpoint or other results are not on disk
STOPPED_EARLY = 75  # EX_TEMPFAIL: run again with --resume


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
        signals: StopSignals,
    ) -> None:
        self.config, self.trainer, self.test_feed = config, trainer, test_feed
        self.total_steps, self.identity, self.fingerprint = total_steps, identity, fingerprint
        self.signals, self.comm = signals, trainer.comm
        self.progress = Progress()
        self.throughput = Throughput()
        self.meter = LoadMeter()
        self.timeline: Timeline | None = None
        self.num_done = 0
        # The last step, if this process made one, and the progress before it: what follows a step
        # can be done again if it is interrupted by the loss of a rank.
        self.latest: tuple[StepResult, Progress] | None = None
        self.lost: list[Process] = []
        self.num_told = 0  # steps up to the last line on the terminal
        self.watch = Watch(
            self.comm,
            config.out_dir / "heartbeats",
            config.stall_timeout,
            stall_ends=config.stall_action == "end",
        )
        self._appoint()

    def _appoint(self) -> None:
        """Gives the rank that is number 0 now the terminal and the directory."""
        writes = self.comm.rank == 0
        self.terminal = Terminal(writes, self.config.progress, self.total_steps)
        self.directory = RunDirectory(
            self.config.out_dir, self.config.keep, writes=writes, warn=self.terminal.warn
        )

    def start(self) -> None:
        """Takes the state to begin with; to be called once, on all ranks."""
        self.started = time.perf_counter()
        if self.config.resume:
            self.num_done = self._resume()
        aside = together(self.comm, partial(self.directory.set_aside, self.num_done))
        if aside:
            self.terminal.say(f"distnet: later checkpoints of an earlier run are now in {aside}")
        self._introduce()
        if self.comm.survives_losses or self.config.stall_timeout:
            together(self.comm, self.watch.start)
        if self.config.timeline:
            self.timeline = Timeline(self.comm)
            together(self.comm, partial(self.timeline.open, Path(self.config.timeline)))
            self.timeline.watch(self.trainer)

    def close(self) -> None:
        """Ends what goes on beside the training."""
        self.watch.stop()

    def __call__(self) -> int:
        """Trains from where the run stands; returns the exit code, the same on all ranks.

        After RankLost and `go_on_from` it can be called again.
        """
        settled = self.num_done - (self.latest is not None)
        text, state = _whole_run(self.config), self._snapshot(settled)
        try:
            together(self.comm, partial(self.directory.open, text, state))
            with self.terminal:
                self._report_loss()
                self._train()
            if self.num_done == self.total_steps:
                self._summarize()
            else:
                self.terminal.say(f"stopped after step {self.num_done}; go on with --resume")
        finally:
            written = self.directory.close()
        written &= self._save_timeline()
        if not all(self.comm.allgather(written)):
            return NOT_WRITTEN
        return DONE if self.num_done == self.total_steps else STOPPED_EARLY

    def go_on_from(self, root: int, lost: list[Process]) -> None:
        """All survivors take the state of rank `root`; `lost` are gone.

        Interrupted by another loss, it leaves each rank with its old state or the new one, whole.
        """
        states = self.comm.allgather((self.num_done, self.latest, self.progress))
        if len({state[0] for state in states}) > 1:
            self.trainer.adopt(root)
        self.comm.confirm()
        self.num_done, self.latest, self.progress = states[root]
        self.lost = self.lost + lost
        self._appoint()

    def _train(self) -> None:
        """To the last step, or until asked to stop."""
        last = min(self.config.stop_at or self.total_steps, self.total_steps)
        if self.latest is not None:
            result, before = self.latest
            self._after(result, replace(before), result.stop or self.num_done == last)
        while self.num_done < last and not (self.latest and self.latest[0].stop):
            with self.meter.step(self.trainer):
                result = self.trainer.step(self.num_done, lambda: self.signals.wanted)
            self.latest, self.num_done = (result, replace(self.progress)), self.num_done + 1
            self.throughput.step(result.num_samples)
            self._after(result, self.progress, result.stop or self.num_done == last)

    def _report_loss(self) -> None:
        if self.lost:
            names = ", ".join(map(str, self.lost))
            self.terminal.warn(
                f"lost {names} after step {self.num_done}; {self.comm.size} ranks go on"
            )
            lost = [process.rank for process in self.lost]
            self.directory.log("recovery", self.num_done, lost=lost, ranks=self.comm.size)
            self.lost = []

    def _after(self, result: StepResult, progress: Progress, ends: bool) -> None:
        """What follows a step, with the progress before it; `ends`: it is the last one for now."""
        config, done = self.config, result.step + 1
        self.progress = progress
        self.progress.add_step(result)
        self.terminal.step(done, result.loss)
        self.directory.check()
        if config.log_every and done % config.log_every == 0:
            self.directory.log("train", done, loss=result.loss, lr=result.lr)
        with self.throughput.pause():
            epoch_ends = done % self.trainer.sampler.steps_per_epoch == 0
            evaluates = epoch_ends or done == self.total_steps
            if evaluates:
                with self.comm.position.during("evaluation"):
                    self._evaluate(done)
            is_best = evaluates and self.progress.best_step == done
            saves = ends or is_best or _due(done, config.checkpoint_every, epoch_ends)
            if saves or _due(done, config.verify_every, epoch_ends):
                with self.comm.position.during("comparison of the ranks"):
                    self._verify(done)
            if saves:
                self.directory.save(self._snapshot(done), is_best)

    def _evaluate(self, done: int) -> None:
        """The end of an epoch."""
        micro_batch_size = min(self.config.micro_batch_size, len(self.test_feed.targets))
        progress = self.progress
        progress.add_evaluation(evaluate(self.test_feed, self.comm, micro_batch_size), done)
        load = self.meter.gather(self.comm)
        if self.config.balance:
            self.trainer.speeds = load.speeds(self.trainer.speeds)
        epoch = done / self.trainer.sampler.steps_per_epoch
        if done > self.num_told:  # no second line when this is done again after a loss
            self.num_told = done
            self.terminal.row(
                f"{epoch:g}" if epoch == int(epoch) else f"{epoch:.2f}",
                str(done),
                f"{progress.train_loss:.4f}",
                f"{progress.test_loss:.4f}",
                f"{progress.test_accuracy:.2%}",
                f"{self.throughput.images_per_second:.0f}",
                f"{load.wait_share:.1%}",
                f"{load.bytes_per_step / 1e6:.2f}",
                str(load.slowest),
                clock_time(time.perf_counter() - self.started),
            )
        self.directory.log(
            "epoch",
            done,
            epoch=epoch,
            train_loss=progress.train_loss,
            train_accuracy=progress.train_accuracy,
            test_loss=progress.test_loss,
            test_accuracy=progress.test_accuracy,
            images_per_second=self.throughput.images_per_second,
            wait_share=load.wait_share,
            bytes_per_step=load.bytes_per_step,
            slowest_rank=load.slowest,
            compute_seconds=[rank.compute_seconds for rank in load.ranks],
            micro_batches=[rank.num_micro_batches for rank in load.ranks],
        )

    def _verify(self, done: int) -> None:
        """Compares the replicas, and tells if one had to be repaired."""
        repaired = self.trainer.verify(done)
        if repaired:
            self.terminal.warn(
                f"step {done}: {repaired}; what it computed since the last comparison is part of "
                "the result: for the exact one go on from an earlier checkpoint"
            )
            self.directory.log("repaired", done, what=repaired)

    def _save_timeline(self) -> bool:
        """Whether nothing is missing."""
        if self.timeline is None:
            return True
        path = self.config.timeline
        if self.timeline.is_full:
            self.terminal.warn(
                f"--timeline: {path} holds the first steps only, later ones are left out"
            )
        try:
            self.timeline.save(Path(path))
        except OSError as error:
            self.terminal.warn(f"--timeline: {path} could not be written ({error.strerror})")
            return False
        return True

    # Checkpoints.

    def _snapshot(self, step: int) -> Checkpoint:
        parameters = self.trainer.parameters
        return Checkpoint(
            step,
            params=parameters.named(),
            optimizer=self.trainer.moments(),
            statistics=parameters.named_statistics(),
            config=self.identity,
            fingerprint=self.fingerprint,
            progress=self.progress.entries(),
        )

    def _resume(self) -> int:
        """Takes the state of a checkpoint; returns the number of steps that it has behind it."""
        (found, progress), warnings = together(self.comm, self._find_checkpoint)
        if other := difference(found=self.fingerprint, expected=found.fingerprint):
            warnings.append(f"the result may differ in its last bits from an unbroken run: {other}")
        for warning in warnings:
            self.terminal.warn(warning)
        self.trainer.restore(found)
        self.progress = progress
        return found.step

    def _find_checkpoint(self) -> tuple[tuple[Checkpoint, Progress], list[str]]:
        warnings: list[str] = []
        if self.config.resume == "latest":
            newest = checkpoints.latest(self.directory.checkpoints)
            if newest.checkpoint is None:
                problems = "; ".join(newest.warnings) or "found no checkpoint"
                where = self.directory.checkpoints
                raise CheckpointError(f"{where}: {problems}, expected one to go on from")
            found, warnings = newest.checkpoint, newest.warnings
        else:
            found = checkpoints.load(Path(self.config.resume))
        own = self._snapshot(found.step)
        before, now = found.config.get("reduction"), own.config["reduction"]
        if before != now:
            warnings.append(
                f"the result is not that of an unbroken run: the checkpoint of step {found.step} "
                f"was computed with reduction {before}, and this run goes on with {now}"
            )
            found = with_reduction_of(own, found)
        check_compatible(found, own)
        if found.step > self.total_steps:
            raise CheckpointError(
                f"checkpoint of step {found.step}: expected one of the {self.total_steps} steps of "
                "this run; resume with more --steps, or with an earlier checkpoint"
            )
        return (found, Progress.restored(found.progress)), warnings

    # What is said at the start and at the end.

    def _introduce(self) -> None:
        config, comm, parameters = self.config, self.comm, self.trainer.parameters
        start = f"resumed at step {self.num_done}" if self.num_done else "from scratch"
        self.terminal.say(
            f"distnet: {config.model} ({parameters.values.size:,} parameters) on {config.data} "
            f"({len(self.trainer.feed.targets):,} training samples), {start}"
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

    def _summarize(self) -> None:
        config, progress = self.config, self.progress
        values = self.trainer.parameters.values.astype("<f4", copy=False)
        self.directory.summarize(
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
                "test_accuracy": progress.test_accuracy,
                "test_loss": progress.test_loss,
                "train_loss": progress.train_loss,
                "best_test_accuracy": progress.best_test_accuracy,
                "best_step": progress.best_step,
                "images_per_second": self.throughput.images_per_second,
                "wall_seconds": time.perf_counter() - self.started,
                "params_sha256": hashlib.sha256(values.tobytes()).hexdigest(),
                "fingerprint": dict(self.fingerprint),
            }
        )
        self.terminal.say(
            f"test accuracy {progress.test_accuracy:.2%} after {self.total_steps} steps; "
            f"summary in {self.directory.summary}"
        )


def _whole_run(config: TrainConfig) -> str:
    """As TOML, without what concerns one part of the run alone, so that it can be run again."""
    return to_toml(replace(config, resume="", stop_at=0))


def _due(done: int, every: int, epoch_ends: bool) -> bool:
    """Whether it is time for what happens every so many steps, or (0) at the end of each epoch."""
    return done % every == 0 if every else epoch_ends
