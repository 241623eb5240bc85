"""What is said at the end of a run about a user's own all-reduce: `--allreduce`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distnet.base.words import counted
from distnet.parallel.sums.own import Judged
from distnet.training.run import Callback, Run


class AllreduceReport(Callback):
    """A line for the user by `say`, and by `log` one in metrics.jsonl: right, and how fast."""

    def __init__(self, name: str, say: Callable[[str], None], log: Callable[..., Any]) -> None:
        self._name, self._say, self._log = name, say, log

    def end(self, run: Run) -> None:
        exchange = run.trainer.reducer.exchange
        if not isinstance(exchange, Judged):
            self._say(f"allreduce {self._name}: one rank has nothing to sum, it was not called")
        elif exchange.times.own:
            self._say(self.line(exchange))
            own, mpi = exchange.times.typical()
            figures = {"function": self._name, "own_seconds": own, "mpi_seconds": mpi}
            self._log("allreduce", run.num_done, sums=len(exchange.times.own), **figures)

    def line(self, exchange: Judged) -> str:
        """Every sum that was wrong has ended the run, so those that are told are right."""
        own, mpi = exchange.times.typical()
        sums = counted(len(exchange.times.own), "sum")
        return (
            f"allreduce {self._name}: {sums} over {exchange.comm.size} ranks, every bit as MPI's; "
            f"{own * 1e3:.2f} ms each, MPI's own {mpi * 1e3:.2f} ms: {own / mpi:.1f} times as long"
        )
