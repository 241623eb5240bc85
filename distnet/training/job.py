"""A run as a job of its own: with a directory, a terminal and an exit code."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from distnet.parallel.agreement import together
from distnet.parallel.communicator import Process
from distnet.parallel.watch import Watch
from distnet.training.run import Run
from distnet.training.saving import Saving
from distnet.training.watching.terminal import Terminal

# Exit codes, from sysexits.h where it has them.
DONE = 0
NOT_WRITTEN = 74  # EX_IOERR: computed, but the last checkpoint or other results are not on disk
STOPPED_EARLY = 75  # EX_TEMPFAIL: run again with --resume


@dataclass
class Job:
    """What the training command does between the first step and its exit code.

    config: the text of config.toml, complete, runnable again. watch: the thread that looks after
    the other ranks.
    """

    run: Run
    saving: Saving
    terminal: Terminal
    watch: Watch
    config: str

    @property
    def num_done(self) -> int:
        """Steps that are complete."""
        return self.run.num_done

    def __call__(self) -> int:
        """Trains from where the run stands; returns the exit code, the same on all ranks.

        After RankLost and `go_on_from` it can be called again.
        """
        run, directory = self.run, self.saving.directory
        if self._was_finished():
            directory.close()
            self.terminal.say(f"this run is finished, nothing is changed; see {directory.summary}")
            return DONE
        # What follows the last step may have to be done again: its lines are not yet written.
        start = self.saving.snapshot(run)
        if run.latest is not None:
            _, record = run.latest
            start = replace(start, step=run.previous, record=record.entries())
        try:
            goes_on = run.latest is not None
            together(run.comm, partial(directory.open, self.config, start, goes_on))
            with self.terminal:
                run.train()
        finally:
            written = directory.close()
        if not all(run.comm.allgather(written and not run.unwritten)):
            return NOT_WRITTEN
        return DONE if run.is_complete else STOPPED_EARLY

    def _was_finished(self) -> bool:
        """Whether the run was resumed after its end, and its results are there, on all ranks."""
        run = self.run
        if not run.is_complete or run.latest is not None:
            return False
        return any(run.comm.allgather(self.saving.directory.is_finished))

    def go_on_from(self, root: int, lost: list[Process]) -> None:
        """All survivors take the state of rank `root`; `lost` are gone; see `Run.go_on_from`."""
        self.run.go_on_from(root, lost)

    def close(self) -> None:
        """Ends what goes on beside the training."""
        self.watch.stop()
