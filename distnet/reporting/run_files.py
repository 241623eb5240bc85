"""What a run has left in its directory, as far as a report needs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distnet.base.options import read_unchecked
from distnet.training.files.checkpoint import Checkpoint, CheckpointError
from distnet.training.files.metrics import read_events
from distnet.training.files.model_file import read

NUM_SHOWN_RANKS = 64


@dataclass(frozen=True)
class RunFiles:
    """config: its options; steps, epochs: lines of metrics.jsonl; summary: {} while it goes on.

    name: of the directory. num_done: steps that it has told of. best: the checkpoint that
    `distnet.load` opens, None if there is none. trace: the file of --timeline, if it is there.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    steps: list[dict[str, Any]]
    epochs: list[dict[str, Any]]
    num_done: int
    summary: Mapping[str, Any]
    best: Checkpoint | None
    trace: Path | None

    @classmethod
    def read(cls, path: Path) -> RunFiles:
        """Raises CheckpointError for what is no directory of a run."""
        if not (path / "config.toml").is_file():
            raise CheckpointError(f"{path}: found no config.toml, expected the directory of a run")
        config = read_unchecked(path / "config.toml")
        metrics = path / "metrics.jsonl"
        try:
            best = read(path)
        except CheckpointError:
            best = None
        steps, epochs = (list(read_events(metrics, event)) for event in ("train", "epoch"))
        told = [*steps, *epochs, *read_events(metrics, "checkpoint")]
        trace = Path(str(config.get("timeline", "")))
        return cls(
            path,
            path.resolve().name,
            config,
            steps,
            epochs,
            max((line["step"] for line in told), default=0),
            _summary(path / "summary.json"),
            best,
            trace if config.get("timeline") and trace.is_file() else None,
        )

    def sets(self) -> list[str]:
        """The names of the sets that were evaluated, such as "valid" and "test"."""
        keys = self.epochs[-1] if self.epochs else {}
        found = [key.removesuffix("_loss") for key in keys if key.endswith("_loss")]
        return [name for name in found if name != "train"]

    def environment(self) -> dict[str, Any]:
        """What computed it."""
        of_summary = dict(self.summary.get("fingerprint", {}))
        return of_summary or dict(self.best.fingerprint if self.best else {})

    def shares(self) -> Iterator[tuple[int, float, float]]:
        """For each rank its number, seconds of computing, and of waiting for others, over the run.

        All ranks are as long in a step, so what a rank has not computed it has waited. How long
        that is follows from the share of waiting in the time of all.
        """
        computed: dict[int, float] = {}
        waited: dict[int, float] = {}
        for line in self.epochs:
            seconds = line.get("compute_seconds") or []
            share = min(max(float(line.get("wait_share") or 0.0), 0.0), 0.999)
            whole = sum(seconds) / (1 - share) / len(seconds) if seconds else 0.0
            for rank, own in enumerate(seconds):
                computed[rank] = computed.get(rank, 0.0) + own
                waited[rank] = waited.get(rank, 0.0) + max(whole - own, 0.0)
        yield from ((rank, computed[rank], waited[rank]) for rank in computed)


def _summary(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
