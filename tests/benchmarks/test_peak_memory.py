"""What memory training takes: the default network on digits, and ResNet-50."""

import subprocess
import sys

import pytest

# Not ru_maxrss, which a process has from the one that started it.
PEAK = """
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""
TRAIN_DIGITS = """
import sys, tempfile
from distnet.parallel import SerialCommunicator
from distnet.train import train
with tempfile.TemporaryDirectory() as out:
    sys.argv += ["--steps", "5", "--no-progress", "--out", out]
    train(SerialCommunicator())
"""
STEPS_OF_RESNET = """
from distnet.benchmarks.networks import CASES, random_trainer
from distnet.benchmarks.step import steps
step = steps(random_trainer(CASES["resnet50"], 4, 4, num_batches=4))
step()
step()
"""


def peak_bytes(program: str) -> int:
    """The peak resident size of a process of its own."""
    command = [sys.executable, "-c", program + PEAK]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1]) * 1024


@pytest.mark.parametrize(
    ("program", "limit"),
    [
        (TRAIN_DIGITS, 174e6),
        (STEPS_OF_RESNET, 1.3 * 1201e6),  # of PyTorch 2.13.0's, `bench memory --model resnet50`
    ],
    ids=["digits", "resnet50"],
)
def test_the_peak_of_a_training_process(program, limit):
    assert peak_bytes(program) < limit
