"""What a run says on the terminal, in metrics.jsonl and in summary.json: two callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from distnet.training import columns
from distnet.training.files.run_directory import RunDirectory
from distnet.training.record import Metrics, Record
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult
from distnet.training.step.trainer import Trainer
from distnet.training.watching.performance import Throughput
from distnet.training.watching.terminal import Terminal


def epoch_figures(run: Run, elapsed_seconds: float) -> dict[str, Any]:
    """All that there is to tell at an evaluation, by the names of `columns`."""
    epoch = run.num_done / run.steps_per_epoch
    metrics = named_metrics(run.record)
    figures = {"epoch": epoch, "step": run.num_done} | metrics | run.figures
    return figures | {"elapsed_seconds": elapsed_seconds}


def named_metrics(record: Record) -> dict[str, float]:
    """The metrics of the training steps and of each set: "train_loss", "test_accuracy"."""
    sets: dict[str, Metrics] = {"train": record.train, **record.evaluated}
    return {f"{name}_{key}": x for name, metrics in sets.items() for key, x in metrics.items()}


class TerminalReport(Callback):
    """A table of epochs, warnings, and one line about the result."""

    def __init__(self, terminal: Terminal, introduction: list[str], result: Callable[[Run], str]):
        self.terminal, self.introduction, self.result = terminal, introduction, result
        self._started = time.perf_counter()
        self._num_told = -1  # steps up to the last line: none is told twice after a loss
        self._has_header = False

    def begin(self, run: Run) -> None:
        for line in self.introduction:
            self.terminal.say(line)
        self.introduction = []

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        if run.num_done <= self._num_told:
            return
        self._num_told = run.num_done
        figures = epoch_figures(run, time.perf_counter() - self._started)
        if not self._has_header:
            self._has_header = True
            self.terminal.say(columns.header(figures))
        self.terminal.say(columns.row(figures))

    def noted(self, run: Run, event: str, text: str, **values: Any) -> None:
        self.terminal.warn(text)

    def end(self, run: Run) -> None:
        self.terminal.say(self.result(run))


class RunLog(Callback):
    """Lines of metrics.jsonl, and summary.json when the run is complete.

    every: steps between training lines; 0: none but those of the epochs. about: what the summary
    says of the run beside its results. card: the text of README.md, of the run and its summary.
    """

    def __init__(
        self,
        directory: RunDirectory,
        every: int,
        throughput: Throughput,
        about: Callable[[Run], Mapping[str, Any]],
        card: Callable[[Run, Mapping[str, Any]], str] | None = None,
    ) -> None:
        self.directory, self.every = directory, every
        self.throughput, self.about, self.card = throughput, about, card
        self._started = time.perf_counter()

    def stepped(self, run: Run, result: StepResult) -> None:
        if self.every and run.num_done // self.every > run.previous // self.every:
            self.directory.log("train", run.num_done, **result.metrics, lr=result.lr)

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        figures = epoch_figures(run, time.perf_counter() - self._started)
        self.directory.log("epoch", figures.pop("step"), **figures)

    def noted(self, run: Run, event: str, text: str, **values: Any) -> None:
        self.directory.log(event, run.num_done, **values)

    def end(self, run: Run) -> None:
        if not run.is_complete:
            return
        record = run.record
        results = named_metrics(record)
        results |= {f"best_{self._first(record)}_{key}": x for key, x in record.best.items()}
        summary = {
            **self.about(run),
            "ranks": run.comm.size,
            "epochs": run.num_done / run.steps_per_epoch,
            "steps": run.num_done,
            **results,
            "best_step": record.best_step,
            "ended": record.ended,
            "images_per_second": self.throughput.images_per_second,
            "wall_seconds": time.perf_counter() - self._started,
            **_hashes(run.trainer),
        }
        if self.card is not None:
            self.directory.describe(self.card(run, summary))
        self.directory.summarize(summary)  # last: it says that the run has ended

    def _first(self, record: Record) -> str:
        return next(iter(record.evaluated), "test")


def _hashes(trainer: Trainer) -> dict[str, str]:
    """Of the parameters that are trained and, if a run keeps one, of their average."""
    with trainer.evaluating():
        evaluated = trainer.parameters.sha256()
    trained = trainer.parameters.sha256()
    average = {"average_sha256": evaluated} if evaluated != trained else {}
    return average | {"params_sha256": trained}
