"""Callbacks that take part in a run; those that tell of it are in `report` and `performance`."""

from __future__ import annotations

from distnet.base.words import counted
from distnet.nn import arguments
from distnet.training.record import Metrics
from distnet.training.run import Callback, Run


class EarlyStopping(Callback):
    """Ends a run when the last `patience` evaluations were no better than the best before them.

    Better by the objective's `score` on the first set that is evaluated, such as the accuracy.
    """

    def __init__(self, patience: int) -> None:
        self.patience = arguments.whole("EarlyStopping", "patience", patience)

    def begin(self, run: Run) -> None:
        if not run.evaluate_on:
            raise ValueError(
                "EarlyStopping: found no set to evaluate on, expected one by which to decide; give "
                "evaluate_on or validation"
            )

    def evaluated(self, run: Run, evaluated: dict[str, Metrics]) -> None:
        if run.record.since_best >= self.patience:
            run.end_early(f"no better for {counted(self.patience, 'evaluation')}")
