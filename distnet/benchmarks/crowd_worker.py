"""What a rank of `bench crowd` does: it trains, and tells its memory and when it has started."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from distnet.base.blas import one_blas_thread
from distnet.parallel import Communicator, run_command, together
from distnet.training.run import Callback, Run
from distnet.training.step.result import StepResult


class Watch(Callback):
    """Measures when the first step is complete, and the memory of all ranks after the last one."""

    def __init__(self, began: float) -> None:
        self._began = began
        self.result: dict[str, float | str] = {}

    def stepped(self, run: Run, result: StepResult) -> None:
        if run.num_done == 1:
            self.result["start"] = time.time() - self._began
            self.result["processor"] = sum(run.comm.allgather(time.process_time()))
        if run.num_done == run.total_steps:
            run.comm.barrier()  # all are alive
            self.result["memory"] = sum(run.comm.allgather(proportional_set_size()))
            self.result["sha256"] = run.trainer.parameters.sha256()


def proportional_set_size() -> int:
    """Bytes of this process, of those that it shares with others its part; 0 but on Linux."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def work(comm: Communicator) -> int:
    """Does the task of the command line."""
    from distnet.building.job import job_of
    from distnet.training.config import parse

    task = json.loads(sys.argv[1])
    watch = Watch(task["began"])
    with one_blas_thread():
        config = together(comm, lambda: parse(task["flags"]))
        job = job_of(config, comm, os.environ, lambda: False)
        job.run.callbacks = [*job.run.callbacks, watch]
        code = job()
        job.close()
    if comm.rank == 0:
        print(json.dumps(watch.result), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(run_command(work, os.environ))
