"""A rank that is slowed down on purpose gets less to do, and the result is the same to the bit."""

from __future__ import annotations

import launching
import pytest
from training_runs import ALONE, SIZES, read_metrics, read_summary, succeed, write_digits

pytestmark = pytest.mark.mpi_launch

# Rank 1 sleeps for each of its micro-batches, far longer than it takes to compute one.
SLOWED = """
import os, runpy, sys, time
from distnet.training.step.feed import Feed

def slowed(self, *args, at_speed=Feed.training):
    time.sleep(0.1)
    return at_speed(self, *args)

if "1" in (os.environ.get("PMI_RANK"), os.environ.get("OMPI_COMM_WORLD_RANK")):
    Feed.training = slowed
sys.argv[0] = "train"
runpy.run_module("distnet.train", run_name="__main__")
"""


def test_work_moves_away_from_a_slow_rank(tmp_path):
    data = str(write_digits(tmp_path))
    flags = ("--model", "two_layer", *SIZES, "--data-dir", data, "--epochs", "3", "--out")
    out, alone = tmp_path / "slowed", tmp_path / "alone"
    job = launching.mpirun(2, "-c", SLOWED, *flags, str(out), "--balance")
    assert job.returncode == 0, job.stderr
    succeed(ALONE, *flags, alone)
    epochs = [line for line in read_metrics(out) if line["event"] == "epoch"]
    first, second, _ = (epoch["micro_batches"] for epoch in epochs)
    # Four micro-batches in each of four steps, two in the last one.
    assert (first, sum(second)) == ([9, 9], 18)
    assert second[1] <= 2
    assert epochs[0]["slowest_rank"] == 1
    assert read_summary(out)["params_sha256"] == read_summary(alone)["params_sha256"]
