"""Programs of clusters as far as the files in launch/ need them, for machines that have none.

A host is a process with a host name, a /dev/shm and a /run of its own, which takes root and Linux.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import launching

LAUNCH = launching.ROOT / "launch"
TRAINING = ["--model", "two_layer", "--augment-shift", "0", "--log-every", "1"]
BECOME_HOST = 'hostname "$1" && shift && mount -t tmpfs none /dev/shm && exec "$@"'
AS_HOST = ["unshare", "--uts", "--ipc", "--mount", "sh", "-c", BECOME_HOST, "host"]

# Starts the daemon of MPICH's launcher once on each node, and that is all that it asks of Slurm.
SRUN = f"""#!/bin/bash
while [[ $1 == -* ]]; do
    case $1 in -N | -n | --input) shift ;; esac
    shift
done
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node {shlex.join(AS_HOST)} "node$((node + 1))" "$@" &
done
wait
"""


def can_be_hosts() -> bool:
    """Whether processes of this machine can act as hosts."""
    try:
        return launching.run([*AS_HOST, "name", "true"]).returncode == 0
    except OSError:
        return False


def programs(directory: Path, **scripts: str) -> str:
    """A PATH with these scripts, by name, before all else, and mpirun and python of the tests."""
    scripts = {
        "mpirun": f'#!/bin/sh\nexec {launching.find_mpirun()} "$@"\n',
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        **scripts,
    }
    directory.mkdir()
    for name, text in scripts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return f"{directory}{os.pathsep}{os.environ['PATH']}"


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """The command in the background, in the checkout."""
    return subprocess.Popen(
        command,
        env={**os.environ, **launching.SETTINGS, **environment},
        cwd=launching.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits while the process runs until the condition holds."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def has_steps(out: Path) -> bool:
    """Whether the run in that directory has made a step."""
    return (out / "metrics.jsonl").exists() and bool((out / "metrics.jsonl").stat().st_size)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Waits for the end; the exit code, and what it wrote on both streams."""
    output, errors = process.communicate(timeout=launching.HUNG_SECONDS)
    assert "Traceback" not in errors
    return process.returncode, output + errors
