"""Runs that the check of an exercise makes: `distnet` commands and programs, alone or on ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distnet.benchmarks.jobs import PERMISSIONS, ROOT, find_mpirun
from distnet.exercises.finding import NotYet

LIMIT_SECONDS = 120.0  # for one run; none takes a tenth of it
PATIENCE_SECONDS = 5
ALONE = 0  # ranks: a process without mpirun
Finished = subprocess.CompletedProcess[str]
# A network with little to compute, so that a check takes seconds.
SMALL = ("--model", "two_layer", "--hidden-size", "50", "--log-every", "0")


def run(
    num_ranks: int, module: str, *args: object, cwd: Path, limit: float = LIMIT_SECONDS
) -> Finished:
    """`python -m MODULE ARGS` on so many ranks, or ALONE, to its end.

    Raises subprocess.TimeoutExpired after `limit` seconds; what was started is gone then.
    """
    process = start(num_ranks, module, *args, cwd=cwd)
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        out, _ = end(process)
        raise subprocess.TimeoutExpired(process.args, limit, out) from None
    except BaseException:
        end(process)
        raise
    return Finished(process.args, process.returncode, out, err)


def start(num_ranks: int, module: str, *args: object, cwd: Path) -> subprocess.Popen[str]:
    """As `run`, but the job still runs."""
    launcher = [find_mpirun(), "-n", str(num_ranks)] if num_ranks != ALONE else []
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", module, *map(str, args)],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def environment() -> dict[str, str]:
    """The environment in which ranks may be started, and find this distnet: else this process's."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**PERMISSIONS, **os.environ, "PYTHONPATH": path}


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ends it and what it has started, politely, so that mpirun cleans up, else by force."""
    for ending in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(process.pid, ending)
        try:
            return process.communicate(timeout=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    return "", ""


def train(num_ranks: int, out: Path, *args: object, cwd: Path | None = None) -> dict[str, Any]:
    """A training run of SMALL to its end; returns its summary. Raises NotYet with its last words.

    It runs in `cwd`, or else in the directory of `out`.
    """
    flags = (*SMALL, "--out", out, *args)
    try:
        done = run(num_ranks, "distnet.train", *flags, cwd=cwd or out.parent)
    except subprocess.TimeoutExpired as late:
        command = shown(num_ranks, flags)
        raise NotYet(f"{command} has not ended within {LIMIT_SECONDS:.0f} s") from late
    if done.returncode:
        raise NotYet(f"{shown(num_ranks, flags)} ends with: {last_words(done)}")
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def shown(num_ranks: int, flags: Sequence[object]) -> str:
    """The command as a student would type it, without directories of the check."""
    start = f"mpirun -n {num_ranks} " if num_ranks else ""
    kept = [str(flag) for flag in flags[len(SMALL) + 2 :]]
    return f"{start}distnet train {' '.join(['--model two_layer', *kept])}"


def last_words(done: Finished) -> str:
    """The line in which a program says why it has failed."""
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    told = [line for line in lines if "distnet: error: " in line or "Error: " in line]
    return (told or lines or ["nothing"])[-1].replace("distnet: error: ", "")


def events(run_directory: Path, name: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that tell of one kind of event."""
    lines = (run_directory / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == name]
