"""The files in `launch/` for clusters: a signal from the cluster, a checkpoint, and on again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import launching
import pytest

LAUNCH = launching.ROOT / "launch"
TRAIN = [sys.executable, "-m", "distnet.train", "--model", "two_layer", "--log-every", "1"]
STEPS = ["--steps", "1500", "--augment-shift", "0"]


def start(command: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, **launching.SETTINGS, **environment},
        cwd=launching.ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_steps(out: Path, process: subprocess.Popen[str]) -> None:
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").stat().st_size:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def finish(process: subprocess.Popen[str]) -> int:
    _, errors = process.communicate(timeout=launching.HUNG_SECONDS)
    assert "Traceback" not in errors
    return process.returncode


def num_checkpoints(out: Path) -> int:
    return len(list((out / "checkpoints").glob("step-*")))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda n: n.name)
def test_resumable_saves_at_a_signal_and_goes_on_the_next_time(tmp_path, number):
    again = tmp_path / "again"
    command = [str(LAUNCH / "resumable.sh"), str(tmp_path / "run"), *TRAIN, *STEPS]
    process = start(command, AGAIN=f"touch {again}")
    wait_for_steps(tmp_path / "run", process)
    assert not again.exists()
    process.send_signal(number)
    assert finish(process) == 75
    assert num_checkpoints(tmp_path / "run") == 1 and again.exists()
    again.unlink()
    assert finish(start(command, AGAIN=f"touch {again}")) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [line["step"] for line in map(json.loads, lines) if line["event"] == "train"]
    assert steps == list(range(1, 1501))
    assert not again.exists()


def test_resumable_ends_with_the_code_of_the_command(tmp_path):
    resumable = str(LAUNCH / "resumable.sh")
    assert finish(start([resumable, str(tmp_path), "sh", "-c", "exit 7"])) == 7
    assert finish(start([resumable, str(tmp_path)])) == 2


@pytest.mark.mpi_launch
def test_the_slurm_job_queues_itself_again(tmp_path):
    """With a stand-in for Slurm's scontrol; Slurm would send SIGUSR1 to the batch script."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, target in (("mpirun", launching.find_mpirun()), ("python", sys.executable)):
        (programs / name).write_text(f'#!/bin/sh\nexec {target} "$@"\n')
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "42",
        "SLURM_NTASKS": "2",
        "SLURM_SUBMIT_DIR": str(launching.ROOT),
        "OUT": str(tmp_path / "run"),
    }
    options = ["--model", "two_layer", "--log-every", "1", "--steps", "100000"]
    process = start(["bash", str(LAUNCH / "slurm.sbatch"), *options], **environment)
    wait_for_steps(tmp_path / "run", process)
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == 75
    assert (tmp_path / "called").read_text() == "requeue 42\n"
    assert num_checkpoints(tmp_path / "run") == 1
    assert "#SBATCH --signal=B:USR1@60" in (LAUNCH / "slurm.sbatch").read_text()
