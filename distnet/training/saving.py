"""Takes the state of a run and puts it into its directory: what a checkpoint is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distnet.training.files.checkpoint import Checkpoint
from distnet.training.files.run_directory import RunDirectory
from distnet.training.run import Run


@dataclass(frozen=True)
class Saving:
    """Writes checkpoints of a run to `directory`.

    identity: what decides the results, and must be the same when the run is resumed. fingerprint:
    the kernels that computed them. model: what the network is made of and for which data.
    """

    directory: RunDirectory
    identity: Mapping[str, Any]
    fingerprint: Mapping[str, str]
    model: Mapping[str, Any]

    def snapshot(self, run: Run) -> Checkpoint:
        """The state of `run` as it is now: views, to be written or copied at once."""
        return Checkpoint(
            run.num_done,
            state=run.trainer.state(),
            config=self.identity,
            fingerprint=self.fingerprint,
            record=run.record.entries(),
            model=self.model,
        )

    def check(self) -> None:
        self.directory.check()

    def save(self, run: Run, is_best: bool) -> None:
        self.directory.save(self.snapshot(run), is_best)
