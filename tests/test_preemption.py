"""A job that is asked to stop saves its state and says by its exit code that it can go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import launching
import numpy as np
import pytest

from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES

pytestmark = pytest.mark.mpi_launch

RANKS = 3
TRAIN = ["-m", "distnet.train", "--model", "two_layer", "--steps", "1000000", "--log-every", "1"]
# Two micro-batches: one of the three ranks has nothing to compute.
SIZES = ["--batch-size", "8", "--micro-batch-size", "4", "--checkpoint-every", "1000000"]
STOPPED_EARLY = 75

Job = subprocess.Popen[str]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 images of one pixel: in so long an epoch nothing but the signal makes a checkpoint."""
    directory = tmp_path_factory.mktemp("pixels")
    values = (np.arange(40_000) % 2).astype(np.uint8)
    for name in IDX_FILES:
        array = values.reshape(-1, 1, 1) if "images" in name else values
        (directory / name).write_bytes(format_idx(array))
    return directory


def wait_for_steps(out: Path, job: Job) -> None:
    path = out / "metrics.jsonl"
    while not path.exists() or not path.read_bytes().count(b"\n"):
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)


def signal_rank(job: Job, rank: int, number: int) -> None:
    """Sends a signal to one rank alone."""
    marks = [f"{name}={rank}".encode() for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK")]
    (pid,) = (p for p in descendants(job.pid) if any(mark in environment(p) for mark in marks))
    os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def environment(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def is_open_mpi() -> bool:
    command = [str(launching.find_mpirun()), "--version"]
    return "Open MPI" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def last_step(out: Path) -> int:
    return json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def run_and(send: Callable[[Job], None], data_dir: Path, out: Path) -> tuple[int, str]:
    """Starts a job, does `send` to it, waits for its end; the exit code and what it complained."""
    args = (*TRAIN, *SIZES, "--data-dir", str(data_dir), "--out", str(out))
    with launching.running(RANKS, *args) as job:
        wait_for_steps(out, job)
        send(job)
        _, errors = job.communicate(timeout=launching.HUNG_SECONDS)
    assert not (out / "summary.json").exists()
    return job.returncode, errors


def assert_stopped(out: Path, code: int, errors: str) -> None:
    """With the right code and one checkpoint, of the last step that was done."""
    assert (code, "Traceback" in errors) == (STOPPED_EARLY, False), errors
    saved = [path.name for path in (out / "checkpoints").iterdir()]
    assert saved == [f"step-{last_step(out):08d}.safetensors"]


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT"])
def test_a_signal_to_mpirun(data_dir, tmp_path, name):
    number = signal.Signals[name]
    code, errors = run_and(lambda job: job.send_signal(number), data_dir, tmp_path)
    if name == "SIGUSR1" or not is_open_mpi():
        assert_stopped(tmp_path, code, errors)
    else:  # leaves the ranks a quarter of a second, and ends with a code of its own
        assert code not in (0, STOPPED_EARLY)


@pytest.mark.parametrize("rank", [0, RANKS - 1])
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_to_one_rank(data_dir, tmp_path, name, rank):
    number = signal.Signals[name]
    code, errors = run_and(lambda job: signal_rank(job, rank, number), data_dir, tmp_path)
    assert_stopped(tmp_path, code, errors)
