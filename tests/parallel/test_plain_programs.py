"""Programs that connect, but do not run inside run_command, fail together as well."""

from __future__ import annotations

import subprocess

import pytest
from launching import codes_of_abort

from distnet.parallel import AgreedExit

FAILS = """
import os, sys
from distnet.parallel import RankError, connect

comm = connect(os.environ)
what, rank = sys.argv[1], int(sys.argv[2])
if comm.rank == rank:
    if what == "exception":
        raise ValueError("a bug on this rank")
    if what == "interrupt":
        raise KeyboardInterrupt
if what == "agreed":
    raise RankError("nobody likes this")
if what == "closed":
    comm.close()
    if comm.rank == rank:
        raise ValueError("a bug after the end")
else:
    comm.barrier()  # where the others wait for the rank that is gone
"""


def own_lines(process: subprocess.CompletedProcess[str]) -> list[str]:
    lines = process.stderr.splitlines()
    return [line for line in lines if line.startswith(("[rank ", "distnet:", "Traceback"))]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("what", "code", "last"),
    [
        ("exception", 1, "ValueError: a bug on this rank"),
        ("interrupt", 130, "interrupted"),
        ("closed", 1, "ValueError: a bug after the end"),
    ],
)
def test_an_exception_on_one_rank_ends_the_job(mpirun, what, code, last, rank):
    process = mpirun(3, "-c", FAILS, what, str(rank))
    assert process.returncode in codes_of_abort(code)
    assert own_lines(process)[-1] == f"[rank {rank}] {last}"
    assert all(line.startswith(f"[rank {rank}] ") for line in own_lines(process))


def test_an_agreed_error_is_one_line(mpirun):
    process = mpirun(3, "-c", FAILS, "agreed", "0")
    assert process.returncode == 2, process.stderr
    assert own_lines(process) == ["distnet: error: nobody likes this"]


def test_without_ranks_nothing_changes(mpirun):
    """A process on its own keeps Python's traceback."""
    process = mpirun(1, "-c", "raise ValueError('plain')")
    assert process.stderr.splitlines()[0] == "Traceback (most recent call last):"


def test_a_function_that_returns_nothing_succeeds(mpirun):
    program = "import os, sys; from distnet.parallel import run_command"
    program += "; sys.exit(run_command(lambda comm: comm.barrier(), os.environ))"
    process = mpirun(2, "-c", program)
    assert (process.returncode, process.stderr) == (0, "")


def test_agreed_exits_are_exits():
    assert issubclass(AgreedExit, SystemExit)
