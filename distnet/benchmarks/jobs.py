"""Starts the child jobs of the benchmarks: ranks under mpirun, or plain processes side by side.

A child is a module that gets its task as one JSON argument and writes its result as one JSON line,
the last one on the standard output of rank 0.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


class JobError(RuntimeError):
    """A child job that did not end well: one line with its command and its last words."""


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
    command = [*launcher, "-n", str(num_ranks), *_python(module, task)]
    return _result(_start(command, {}))


def run_group(num_processes: int, module: str, task: Mapping[str, Any]) -> Result:
    """Starts plain processes that find each other by the variables that torchrun sets, too."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    size = {"WORLD_SIZE": str(num_processes)}
    processes = [
        _start(_python(module, task), address | size | {"RANK": str(rank)})
        for rank in range(num_processes)
    ]
    try:
        results = [_result(process) for process in processes]
        return results[0]
    finally:
        for process in processes:
            process.kill()


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


def _result(process: subprocess.Popen[str]) -> Result:
    try:
        out, err = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"took longer than {TIMEOUT_SECONDS:g} s"
    lines = out.splitlines()
    if process.returncode != 0:
        words = (err.strip() or out.strip() or "no output").splitlines()[-1]
        raise JobError(f"{process.args!r} ended with exit code {process.returncode}: {words}")
    return json.loads(lines[-1]) if lines else {}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
