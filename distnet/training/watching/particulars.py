"""What a run of the training command is, in words: first lines, last line, summary and README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from distnet.base.arithmetic import FLOAT
from distnet.base.words import counted
from distnet.data import Dataset
from distnet.device import CPU
from distnet.objectives import Classification
from distnet.training.config import TrainConfig
from distnet.training.model_card import model_card
from distnet.training.placement import devices, idle_ranks, placement
from distnet.training.run import Run
from distnet.training.saving import Saving
from distnet.training.step.device_loss import device_of


@dataclass(frozen=True)
class Particulars:
    """What there is to say of a run besides its figures.

    config: its options; dataset: what they name; saving: where its results go.
    """

    config: TrainConfig
    dataset: Dataset
    saving: Saving

    def introduction(self, run: Run) -> list[str]:
        """What is said at the start."""
        config, dataset, comm = self.config, self.dataset, run.comm
        start = "from these weights" if config.init else "from scratch"
        if run.num_done:
            start = f"resumed at step {run.num_done}"
        parameters = run.trainer.parameters
        frozen = f", {parameters.constants.size:,} frozen" if parameters.constants.size else ""
        samples = counted(len(run.trainer.feed.targets), "training sample", spec=",")
        return [
            *(f"distnet: {dataset.name}: {note}" for note in dataset.notes),
            f"distnet: {config.model} ({parameters.size:,} parameters{frozen}) on "
            f"{dataset.name} ({samples}), {start}",
            f"ranks {comm.size} on {placement(comm)}, batch {config.batch_size} in "
            f"micro-batches of {config.micro_batch_size}, {counted(run.total_steps, 'step')}, "
            f"{_arithmetic(config)}{_devices(config, run)}reduction {config.reduction}, "
            f"results in {self.saving.directory.path}",
            *_islands(config),
            *_audit(config, run),
            *idle_ranks(comm.size, run.trainer.sampler),
        ]

    def result(self, run: Run) -> str:
        """What is said at the end."""
        if not run.is_complete:
            return f"stopped after step {run.num_done}; go on with --resume"
        accuracy, why = run.record.evaluated["test"]["accuracy"], run.record.ended
        reason = f" ({why})" if why else ""
        directory = self.saving.directory
        summary = f"; summary in {directory.summary}" if directory.is_finished else ""
        return (
            f"test accuracy {accuracy:.2%} after {counted(run.num_done, 'step')}{reason}{summary}"
        )

    def summary(self, run: Run) -> dict[str, Any]:
        """What summary.json says beside the results."""
        config, dataset = self.config, self.dataset
        return {
            "model": config.model,
            "data": dataset.name,
            "data_sha256": dataset.sha256,
            "classes": dataset.classes,
            "input_shape": dataset.input_shape,
            "scale": dataset.scale,
            "batch_size": config.batch_size,
            "micro_batch_size": config.micro_batch_size,
            "seed": config.seed,
            "arithmetic": repr(config.numbers) if config.numbers.rounds else config.arithmetic,
            "reduction": config.reduction,
            **({"audited": run.trainer.audit.num_compared} if run.trainer.audit else {}),
            "fingerprint": dict(self.saving.fingerprint),
        }

    def card(self, run: Run, summary: Mapping[str, Any]) -> str:
        """README.md of the run."""
        network = cast(Classification, run.trainer.objective).network
        return model_card(
            self.saving.directory.path,
            summary,
            self.config,
            network=network,
            dataset=self.dataset,
            num_samples=len(run.trainer.feed.targets),
        )


def _arithmetic(config: TrainConfig) -> str:
    """Words for an arithmetic that is not the one of all runs."""
    if config.arithmetic == FLOAT.name:
        return ""
    bits = f" ({config.arithmetic_bits} bits)" if config.numbers.rounds else ""
    return f"arithmetic {config.arithmetic}{bits}, "


def _devices(config: TrainConfig, run: Run) -> str:
    """What the layers compute on, if somebody asked for another than the CPU."""
    if config.device == CPU:
        return ""
    return f"device {devices(run.comm, device_of(run.trainer.objective))}, "


def _islands(config: TrainConfig) -> list[str]:
    """A line about islands, if there are any."""
    if (local := config.local) is None:
        return []
    return [
        f"islands {local.islands}, synchronised every {local.sync_every} steps, their changes "
        f"summed as {local.sync_reduction}"
    ]


def _audit(config: TrainConfig, run: Run) -> list[str]:
    """A line about what is computed twice, if something is."""
    if not config.audit:
        return []
    if run.comm.size == 1:
        return ["--audit: there is no other rank to compute anything again, so nothing is audited"]
    most = run.trainer.sampler.max_micro_batches
    line = f"audit: {min(config.audit, most)} of {most} micro-batches of a step on two ranks"
    if run.comm.size == 2:
        line += "; which of the two is at fault can be told only if it contradicts itself"
    return [line]
