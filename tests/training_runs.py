"""Whole training runs on a small data set: used by tests of the command, in a process or on ranks.

230 training images in batches of 50 and micro-batches of 16: the last batch of an epoch has 30
samples, the last micro-batch of a batch 2 or 14, and 5 ranks are more than there are micro-batches.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import launching
import numpy as np

from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES

NUM_TRAIN, NUM_TEST = 230, 37
STEPS_PER_EPOCH = 5
SIZES = ("--batch-size", "50", "--micro-batch-size", "16")
ALONE = 0  # ranks: a process without mpirun

# What Open MPI's mpirun says now and then about itself when ranks end with an error code.
NOISE = re.compile(r"\[warn\] Epoll |\[[^]]+:\d+\] (PMIX|PRTE) ERROR: ")

Process = subprocess.CompletedProcess[str]


def write_digits(directory: Path) -> Path:
    """A data set of the shape of MNIST, as IDX files in `directory`; returns it."""
    rng = np.random.Generator(np.random.Philox(key=0))
    num_images = NUM_TRAIN + NUM_TEST
    labels = np.arange(num_images, dtype=np.uint8) % 10
    shapes = rng.integers(0, 256, (10, 28, 28))
    noise = rng.integers(0, 256, (num_images, 28, 28))
    images = ((shapes[labels] + noise) // 2).astype(np.uint8)
    arrays = images[:NUM_TRAIN], labels[:NUM_TRAIN], images[NUM_TRAIN:], labels[NUM_TRAIN:]
    for name, array in zip(IDX_FILES, arrays, strict=True):
        (directory / name).write_bytes(format_idx(array))
    return directory


def train(num_ranks: int, *args: str | Path) -> Process:
    """Runs the command on `num_ranks` ranks, or ALONE, to its end."""
    command = ["-m", "distnet.train", *map(str, args)]
    if num_ranks == ALONE:
        return run_python(*command)
    return launching.mpirun(num_ranks, *command)


def run_python(*args: str) -> Process:
    """Runs Python on its own, as a user does: nothing but the path to this checkout is set."""
    return launching.run(
        [sys.executable, *args],
        cwd=launching.ROOT,
        env={**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"]},
        stdin=subprocess.DEVNULL,
    )


def succeed(num_ranks: int, *args: str | Path, code: int = 0) -> None:
    """Runs the command, which has to end with `code` and nothing to complain about."""
    process = train(num_ranks, *args)
    assert process.returncode == code, process.stderr
    assert own_lines(process) == []


def own_lines(process: Process) -> list[str]:
    """What the ranks have written to stderr, without NOISE and mpirun's words between two rules."""
    lines, in_banner = [], False
    for line in process.stderr.splitlines():
        is_rule = len(line) > 70 and set(line) == {"-"}
        in_banner ^= is_rule
        if not (in_banner or is_rule or NOISE.match(line)):
            lines.append(line)
    return lines


def read_summary(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def read_metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def events(out: Path) -> list[tuple[str, int]]:
    """The events of metrics.jsonl in their order, with their steps."""
    return [(line["event"], line["step"]) for line in read_metrics(out)]


def checkpoint(out: Path, step: int) -> Path:
    return out / "checkpoints" / f"step-{step:08d}.safetensors"
