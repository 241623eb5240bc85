"""What `fit` has measured, which is what it returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from distnet.base.words import counted
from distnet.optim import Optimizer
from distnet.training.record import Metrics, Record
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult


@dataclass(repr=False)
class History(Callback):
    """What `fit` measured.

    steps: the metrics of every step on its batch, from the forward pass, before the update.
    num_updates: how many updates had been made at each evaluation; 0: the network as it started.
    evaluations: by the name of the set, the metrics at each of `num_updates`.
    diverged: why training ended early, if it did. ended: the same for a callback that ended it.
    params_sha256: of what the network has in the end, with `ema` the average, as little-endian
    float32.
    num_steps: updates so far, those of the calls before it included, if it went on after them.
    optimizer, record: with their state, for a call that goes on.
    """

    steps: list[Metrics] = field(default_factory=list)
    num_updates: list[int] = field(default_factory=list)
    evaluations: dict[str, list[Metrics]] = field(default_factory=dict)
    diverged: str | None = None
    ended: str = ""
    params_sha256: str = ""
    num_steps: int = 0
    optimizer: Optimizer | None = field(default=None, compare=False)
    record: Record = field(default_factory=Record, compare=False)

    def __repr__(self) -> str:
        """In a line: a notebook shows what `fit` returns."""
        told = [counted(len(self.steps), "step")]
        if self.steps:
            told.append(f"loss {self.losses[0]:.4g} to {self.losses[-1]:.4g}")
        for name, measured in self.evaluations.items():
            told += [f"{name} {metric} {x:.4g}" for metric, x in (measured or [{}])[-1].items()]
        told += [reason for reason in (self.ended, self.diverged) if reason]
        return f"<History: {', '.join(told)}>"

    @property
    def losses(self) -> list[float]:
        """The loss of every step."""
        return [step["loss"] for step in self.steps]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy of every step, between 0 and 1, of a classifier."""
        return self._accuracies_of(self.steps)

    def accuracy(self, name: str) -> list[float]:
        """The accuracy on set `name` at each evaluation, between 0 and 1, of a classifier."""
        if name not in self.evaluations:
            sets = ", ".join(map(repr, self.evaluations)) or "none, as fit had no evaluate_on"
            raise ValueError(f"accuracy: found no set {name!r:.60}, expected one of these: {sets}")
        return self._accuracies_of(self.evaluations[name])

    def _accuracies_of(self, measured: list[Metrics]) -> list[float]:
        if measured and "accuracy" not in measured[0]:
            names = ", ".join(map(repr, measured[0]))
            raise ValueError(
                f"accuracy: found the metrics {names}, expected those of a classifier; `steps` and "
                "`evaluations` have all that there are"
            )
        return [metrics["accuracy"] for metrics in measured]

    def complete(self, run: Run) -> None:
        """To be called when `run` has ended: its network keeps what was evaluated last."""
        run.trainer.use_evaluated()
        self.ended, self.num_steps, self.record = run.record.ended, run.num_done, run.record
        self.params_sha256 = run.trainer.parameters.sha256()

    def stepped(self, run: Run, result: StepResult) -> None:
        self.steps.append(result.metrics)

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        self.num_updates.append(run.num_done)
        for name, metrics in evaluated.items():
            self.evaluations[name].append(metrics)
