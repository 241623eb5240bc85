"""`distnet train --allreduce`: what it says of a user's function, right or wrong, and the bits."""

from __future__ import annotations

import json
import re

import launching
import pytest
from training_runs import SIZES, read_summary, write_digits

from distnet.training.config import ConfigError, parse

MINE = """
def right(send, receive, comm):
    for numbers in comm.allgather(send):
        receive += numbers

def wrong(send, receive, comm):
    receive[:] = send
"""


@pytest.fixture
def start(tmp_path):
    """Trains on so many ranks in a directory that has the module `mine`."""
    (tmp_path / "mine.py").write_text(MINE)
    data = write_digits(tmp_path)

    def start(num_ranks, *args):
        flags = ["--model", "two_layer", *SIZES, "--data-dir", data, "--steps", 6, *args]
        command = ["-m", "distnet.train", *map(str, flags)]
        return launching.mpirun(num_ranks, *command, cwd=tmp_path, timeout=600)

    return start


@pytest.mark.mpi_launch
def test_a_function_that_is_right(start, tmp_path):
    done = start(3, "--allreduce", "mine:right", "--out", "own", "--timeline", "trace.json")
    assert done.returncode == 0, done.stderr
    words = r"allreduce mine:right: 6 sums over 3 ranks, every bit as MPI's; \d+\.\d\d ms each, "
    assert re.match(words, done.stdout.splitlines()[-1])
    spans = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(span["name"] == "mine:right" for span in spans) == 3 * 6
    assert start(1, "--out", "alone").returncode == 0
    own, alone = (read_summary(tmp_path / name)["params_sha256"] for name in ("own", "alone"))
    assert own == alone


@pytest.mark.mpi_launch
def test_a_function_that_is_wrong_ends_the_run(start, tmp_path):
    done = start(2, "--allreduce", "mine:wrong", "--out", "own")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "distnet: error" in line]
    assert re.search("mine:wrong: its sums are wrong on 2 of 2 ranks in step 0", line)
    assert not (tmp_path / "own" / "summary.json").exists()


@pytest.mark.parametrize(
    "more, words",
    [
        (["--reduction", "float32"], "found --reduction float32 beside it, expected exact"),
        (["--exchange", "shared"], "found --exchange shared beside it"),
        (["--sync", "local"], "found --sync local beside it"),
    ],
)
def test_what_does_not_go_with_it(more, words):
    with pytest.raises(ConfigError, match=f"^--allreduce: {words}"):
        parse(["--allreduce", "mine:right", *more])
