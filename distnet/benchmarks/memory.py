"""`python -m distnet.bench memory`: peak resident size of a training process, beside PyTorch.

Each contender trains the same network in a process of its own: the training command, or for a
network that is not for digits a few steps on random images; beside it PyTorch. Both hold the
packaged digits as bytes. The resident size counts memory that processes share as well.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from distnet.base.blas import one_blas_thread
from distnet.base.options import option, parse_options
from distnet.benchmarks.networks import CASES, DIGITS, random_trainer, torch_step
from distnet.benchmarks.rounds import describe_machine
from distnet.benchmarks.step import steps
from distnet.data import load_dataset

NUM_STEPS, NUM_LARGE_STEPS = 20, 3
MAXRSS_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of `ru_maxrss`

DISTNET = """
import resource, sys, tempfile
from distnet.train import train
from distnet.parallel import SerialCommunicator
with tempfile.TemporaryDirectory() as out:
    sys.argv += ["--steps", "20", "--no-progress", "--out", out]
    train(SerialCommunicator())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
DISTNET_STEPS = """
import resource
from distnet.benchmarks.memory import train_steps
train_steps({model!r}, {batch}, {micro_batch})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
PYTORCH = """
import resource
from distnet.benchmarks.memory import train_torch
train_torch({model!r}, {batch}, {channels_last})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


COUNT = {">=": 0, "<=": 1_000_000}


@dataclass(frozen=True)
class MemoryOptions:
    """Measures the peak resident size of a training process, beside PyTorch's."""

    model: str = option("deep_convnet", "network", group="run", choices=CASES)
    batch_size: int = option(
        0, "global batch; 0: 100, of photographs 4", group="run", metavar="N", limits=COUNT
    )
    micro_batch_size: int = option(
        0, "of distnet; 0: 50, or the whole batch", group="run", metavar="N", limits=COUNT
    )


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code."""
    options = parse_options(MemoryOptions, argv, "python -m distnet.bench memory")
    print(describe_machine())
    batch_size = options.batch_size or CASES[options.model].batch_size
    micro_batch_size = options.micro_batch_size or min(50, batch_size)
    rows = {
        f"distnet micro-batch {micro_batch_size}": _distnet(
            options.model, batch_size, micro_batch_size
        )
    }
    if importlib.util.find_spec("torch") is not None:
        for layout in ("NCHW", "channels_last"):
            program = PYTORCH.format(
                model=options.model,
                batch=batch_size,
                channels_last=layout == "channels_last",
            )
            rows[f"PyTorch {layout}"] = _peak_bytes(program)
    for name, size_bytes in rows.items():
        print(f"{name:<26}{size_bytes / 1e6:>8.0f} MB peak resident")
    return 0


def train_steps(model: str, batch_size: int, micro_batch_size: int) -> None:
    """What a process does for a network that is not for digits."""
    trainer = random_trainer(CASES[model], batch_size, micro_batch_size, num_batches=4)
    _repeat(steps(trainer), model)


def train_torch(model: str, batch_size: int, channels_last: bool) -> None:
    """What the PyTorch processes do."""
    _repeat(torch_step(CASES[model], batch_size, channels_last), model)


def _repeat(step: Callable[[], object], model: str) -> None:
    digits = load_dataset()
    with one_blas_thread():
        for _ in range(NUM_STEPS if CASES[model].input_shape == DIGITS else NUM_LARGE_STEPS):
            step()
    del digits


def _distnet(model: str, batch_size: int, micro_batch_size: int) -> int:
    if CASES[model].input_shape != DIGITS:
        return _peak_bytes(
            DISTNET_STEPS.format(model=model, batch=batch_size, micro_batch=micro_batch_size)
        )
    sizes = ["--batch-size", str(batch_size), "--micro-batch-size", str(micro_batch_size)]
    return _peak_bytes(DISTNET, "--model", model, *sizes)


def _peak_bytes(program: str, *arguments: str) -> int:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) * MAXRSS_BYTES
