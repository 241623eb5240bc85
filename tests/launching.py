"""Starts programs on several MPI ranks, on one machine, with a time limit: used by the tests alone.

Works with the mpirun of MPICH and Open MPI, as root and with more ranks than cores.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

Finished = subprocess.CompletedProcess[str]

# What has not ended by then never will: far more than any program of the tests takes, as machines
# are shared and nothing may fail because one is slow.
HUNG_SECONDS = 240.0

ROOT = Path(__file__).resolve().parent.parent

# Open MPI: root needs both of the first two; ranks may outnumber cores (version 5, version 4), and
# then must not spin while they wait. One BLAS thread a rank: two on each of two cores ran 10 to 50
# times slower. Programs find this checkout, installed or not.
SETTINGS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
}


def find_mpirun() -> Path:
    """The mpirun beside this Python, else on PATH; RuntimeError if there is none."""
    beside_python = Path(sys.executable).with_name("mpirun")
    found = beside_python if beside_python.exists() else shutil.which("mpirun")
    if found is None:
        raise RuntimeError(
            f"found no mpirun beside {sys.executable} or on PATH, multi-rank tests cannot run; "
            "install one with: pip install mpich"
        )
    return Path(found)


def run(command: Sequence[str], **settings: Any) -> Finished:
    """`command` to its end, with what it writes; settings as for subprocess.run."""
    captured = {"capture_output": True, "text": True, "timeout": HUNG_SECONDS}
    return subprocess.run(command, **{**captured, **settings})


@cache
def version_of_mpirun() -> str:
    """What `mpirun --version` says."""
    command = [str(find_mpirun()), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def codes_of_abort(code: int) -> set[int]:
    """The exit codes that mpirun may return when a rank has called abort(code).

    Open MPI's returns that code, or once in thousands of times crashes itself when all is told and
    done. MPICH's combines the exit codes of all ranks bit by bit, also of
    those that it has killed, if it collects one before the output of the others is closed: then
    it returns their SIGKILL, which happens on a busy machine.
    """
    if "Open MPI" in version_of_mpirun():
        return {code, -int(signal.SIGSEGV)}
    return {code, int(signal.SIGKILL)}


@contextmanager
def running(
    num_ranks: int,
    *args: str,
    env: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
    cwd: Path = ROOT,
) -> Iterator[subprocess.Popen[str]]:
    """`mpirun -n num_ranks OPTIONS python ARGS` while it runs; its processes are gone afterwards.

    `env` is added to this process's environment. Its output is to be read by `communicate`.
    """
    process = subprocess.Popen(
        [str(find_mpirun()), "-n", str(num_ranks), *options, sys.executable, *args],
        cwd=cwd,
        env={**os.environ, **SETTINGS, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            _kill(process)


def mpirun(num_ranks: int, *args: str, timeout: float = HUNG_SECONDS, **settings: Any) -> Finished:
    """Runs a program on ranks to its end and captures what it writes; settings as for `running`.

    Raises subprocess.TimeoutExpired with the output so far if it takes longer than `timeout`
    seconds; its processes are gone then.
    """
    with running(num_ranks, *args, **settings) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            output = _kill(process)
            raise subprocess.TimeoutExpired(process.args, timeout, *output) from None
    return Finished(process.args, process.returncode, stdout, stderr)


def mpirun_apart(directory: Path, *args: str) -> Finished:
    """Runs a program on two ranks, the first in `directory`/0 and the second in `directory`/1."""
    second = f'cd {shlex.quote(str(directory / "1"))} && exec "$0" "$@"'
    apart = (":", "-n", "1", "sh", "-c", second, sys.executable, *args)
    return mpirun(1, *args, *apart, cwd=directory / "0")


def _kill(process: subprocess.Popen[str], patience: float = 3) -> tuple[str, str]:
    """Ends mpirun politely, so that it cleans up, else by force."""
    for end in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, end)
        try:
            return process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            continue
    return "", f"process {process.pid} survives SIGKILL"
