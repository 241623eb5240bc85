"""`python -m distnet.bench memory`: peak resident size of a training process, beside PyTorch.

Each contender trains the same network in a process of its own that holds the packaged digits as
bytes. The resident size counts memory that processes share as well.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass

from distnet.base.options import option, parse_options
from distnet.benchmarks.networks import CASES, torch_step
from distnet.benchmarks.rounds import describe_machine
from distnet.models import MODELS

DISTNET = """
import resource, sys, tempfile
from distnet.train import train
from distnet.parallel import SerialCommunicator
with tempfile.TemporaryDirectory() as out:
    sys.argv += ["--steps", "20", "--no-progress", "--out", out]
    train(SerialCommunicator())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
PYTORCH = """
import resource
from distnet.benchmarks.memory import train_torch
train_torch({model!r}, {batch}, {channels_last})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


COUNT = {">=": 1, "<=": 1_000_000}


@dataclass(frozen=True)
class MemoryOptions:
    """Measures the peak resident size of a training process, beside PyTorch's."""

    model: str = option(
        "deep_convnet", "network", group="run", choices=(n for n in CASES if n in MODELS)
    )
    batch_size: int = option(100, "global batch", group="run", metavar="N", limits=COUNT)
    micro_batch_size: int = option(50, "of distnet", group="run", metavar="N", limits=COUNT)


def main(argv: list[str]) -> int:
    """The benchmark; returns its exit code."""
    options = parse_options(MemoryOptions, argv, "python -m distnet.bench memory")
    print(describe_machine())
    flags = ["--model", options.model, "--batch-size", str(options.batch_size)]
    flags += ["--micro-batch-size", str(options.micro_batch_size)]
    rows = {f"distnet micro-batch {options.micro_batch_size}": _peak_bytes(DISTNET, *flags)}
    if importlib.util.find_spec("torch") is not None:
        for layout in ("NCHW", "channels_last"):
            program = PYTORCH.format(
                model=options.model,
                batch=options.batch_size,
                channels_last=layout == "channels_last",
            )
            rows[f"PyTorch {layout}"] = _peak_bytes(program)
    for name, size_bytes in rows.items():
        print(f"{name:<26}{size_bytes / 1e6:>8.0f} MB peak resident")
    return 0


def train_torch(model: str, batch_size: int, channels_last: bool, num_steps: int = 20) -> None:
    """What the PyTorch processes do."""
    from distnet.data import load_dataset

    digits = load_dataset()
    step = torch_step(CASES[model], batch_size, channels_last)
    for _ in range(num_steps):
        step()
    del digits


def _peak_bytes(program: str, *arguments: str) -> int:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) * 1024
