"""Starts the child jobs of the benchmarks: ranks under mpirun, or plain processes side by side.

A child is a module that gets its task as one JSON argument and writes its result as one JSON line,
the last one on the standard output of rank 0.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from distnet.base.blas import one_blas_thread
from distnet.parallel import Communicator, run_command

TIMEOUT_SECONDS = 900.0
ROOT = Path(__file__).resolve().parents[2]

# Open MPI: allowed as root, and with more ranks than cores (version 5, version 4), which then must
# not spin while they wait. Other MPIs do not look at these.
PERMISSIONS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}

Result = dict[str, Any]
Tasks = Mapping[str, Callable[[Communicator, dict[str, Any]], Result]]


def do_task(tasks: Tasks) -> int:
    """In a child, on all ranks: the one of `tasks` that its argument names; the exit code."""

    def work(comm: Communicator) -> int:
        task = json.loads(sys.argv[1])
        with one_blas_thread():
            result = tasks[task["do"]](comm, task)
        if comm.rank == 0:
            print(json.dumps(result), flush=True)
        return 0

    return run_command(work, os.environ)


class JobError(RuntimeError):
    """A child job that did not end well: one line with its command and its last words."""

    exit_code = 1


def find_mpirun() -> str:
    """The mpirun beside this Python, else on PATH; raises JobError if there is none."""
    beside = Path(sys.executable).with_name("mpirun")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        raise JobError("found no mpirun beside Python or on PATH; pip install 'distnet-mpi[mpich]'")
    return found


def run_ranks(
    launcher: Sequence[str], num_ranks: int, module: str, task: Mapping[str, Any]
) -> Result:
    """Runs `LAUNCHER -n num_ranks python -m module TASK`; returns what rank 0 has to say."""
    return run_words([*launcher, "-n", str(num_ranks), *_python(module, task)], {})


def run_words(command: Sequence[str], environ: Mapping[str, str]) -> Result:
    """Runs a command with variables besides this process's; returns what its last line says."""
    return _result(_collect(_start(command, environ)))


def run_group(num_processes: int, module: str, task: Mapping[str, Any]) -> Result:
    """Starts plain processes that find each other by the variables that torchrun sets, too."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    size = {"WORLD_SIZE": str(num_processes)}
    processes = [
        _start(_python(module, task), address | size | {"RANK": str(rank)})
        for rank in range(num_processes)
    ]
    _wait(processes)
    jobs = [_collect(process) for process in processes]
    # One that failed comes before those that were ended because of it.
    results = [_result(job) for job in sorted(jobs, key=_was_ended)]
    return next(result for result in results if result)


def _was_ended(job: subprocess.CompletedProcess[str]) -> bool:
    return job.returncode == -signal.SIGKILL


def _wait(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Until all are done; as soon as one fails, or it takes too long, the others are ended."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    try:
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _python(module: str, task: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", module, json.dumps(task)]


def _start(command: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        return subprocess.Popen(
            command,
            env={**PERMISSIONS, **os.environ, "PYTHONPATH": path, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    except OSError as error:
        raise JobError(f"cannot start {command[0]} ({error.strerror})") from error


def _collect(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """What it has written, when it has ended."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"took longer than {TIMEOUT_SECONDS:g} s"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _result(job: subprocess.CompletedProcess[str]) -> Result:
    """What its last line says; raises JobError unless it ended well."""
    if job.returncode != 0:
        words = (job.stderr.strip() or job.stdout.strip() or "no output").splitlines()[-1]
        raise JobError(f"{shlex.join(job.args)} ended with exit code {job.returncode}: {words}")
    lines = job.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
