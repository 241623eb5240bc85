"""Tests of the tests: what goes wrong on one rank has to be seen, under the right name, in time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import launching
import pytest

pytestmark = pytest.mark.mpi_launch  # they start a pytest that starts mpirun

HERE = Path(__file__).parent
HARNESS = ("conftest.py", "launching.py", "rank_plugins.py")

GOOD_AND_BAD = """
import os
import numpy as np
import pytest

def test_serial(comm):
    assert comm.size == 1

@pytest.mark.mpi(min_size=2)
def test_sum(comm):
    ones = np.ones(3)
    comm.allreduce(ones)
    assert comm.size == 2 and set(ones) == {2.0}

@pytest.mark.mpi(min_size=2)
def test_rank_1_asserts(comm):
    print("said by rank", comm.rank)
    assert comm.rank == 0, "no reason"
    comm.barrier()

@pytest.mark.mpi(min_size=2, timeout=1)
def test_deadlock(comm):
    if comm.rank == 0:
        comm.barrier()

@pytest.mark.mpi(min_size=2)
def test_rank_1_is_killed(comm):
    if comm.rank == 1:
        os.kill(os.getpid(), 9)
    comm.barrier()

@pytest.mark.mpi(min_size=2)
def test_skip(comm):
    pytest.skip("for a reason")

@pytest.mark.mpi(min_size=2)
@pytest.mark.xfail(strict=True)
def test_xfail(comm):
    raise ValueError

@pytest.mark.mpi(min_size=3)
def test_three(comm):
    assert comm.size == 3
"""


PYTEST = ("-m", "pytest", "-rA", "-p", "no:cacheprovider", "--color=no")


def run_pytest(
    directory: Path, python: str = sys.executable, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *PYTEST],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"], **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with this harness and the tests above."""
    directory = tmp_path_factory.mktemp("harness")
    for name in HARNESS:
        shutil.copy(HERE / name, directory)
    (directory / "test_it.py").write_text(GOOD_AND_BAD)
    return directory


@pytest.fixture(scope="module")
def output(directory: Path) -> str:
    """What plain pytest shows."""
    process = run_pytest(directory)
    assert process.returncode == 1
    return process.stdout


def section(output: str, test: str) -> str:
    """The report of a failed test."""
    return re.split(rf"^_+ {test} _+$", output, flags=re.M)[1].split("\n____")[0]


def test_every_test_is_reported_under_its_own_name(output):
    lines = re.findall(r"^(PASSED|FAILED|XFAIL) test_it.py::(\w+)", output, re.M)
    assert {name: outcome for outcome, name in lines} == {
        "test_serial": "PASSED",
        "test_sum": "PASSED",
        "test_rank_1_asserts": "FAILED",
        "test_deadlock": "FAILED",
        "test_rank_1_is_killed": "FAILED",
        "test_xfail": "XFAIL",
        "test_three": "PASSED",
    }
    assert re.search(r"SKIPPED \[1\] .*for a reason", output)
    assert "3 failed, 3 passed, 1 skipped, 1 xfailed" in output


def test_a_failure_shows_the_rank_that_asserted(output):
    report = section(output, "test_rank_1_asserts")
    assert "AssertionError: no reason" in report
    assert "failed on rank 1 of 2" in report
    assert "said by rank 1" in report


def test_a_deadlock_ends_and_shows_where_ranks_wait(output):
    report = section(output, "test_deadlock")
    assert "mpirun ended with exit code 86" in report
    assert "test_it.py::test_deadlock takes longer than 1 s" in report
    assert re.search(r'test_it.py", line \d+ in test_deadlock', report)


def test_a_killed_rank_fails_its_test(output):
    assert "mpirun ended with exit code" in section(output, "test_rank_1_is_killed")


def test_without_mpirun_multi_rank_tests_fail(directory, tmp_path):
    """A Python with no mpirun beside it or on PATH: a failure with the remedy, not a skip."""
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    packages = os.pathsep.join([str(launching.ROOT), sysconfig.get_path("purelib")])
    process = run_pytest(directory, str(python), PATH=str(tmp_path), PYTHONPATH=packages)
    assert "7 failed, 1 passed" in process.stdout
    assert process.stdout.count("found no mpirun beside") >= 7


def test_under_mpirun_only_rank_0_reports(directory, mpirun):
    process = mpirun(2, *PYTEST, "--with-mpi", "-k", "serial or sum or three", cwd=directory)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("test session starts") == 1
    assert "2 passed, 1 skipped" in process.stdout


def test_under_mpirun_a_failing_rank_ends_the_job(directory, mpirun):
    process = mpirun(2, *PYTEST, "--with-mpi", "-k", "asserts", cwd=directory)
    assert process.returncode in launching.codes_of_abort(1)
    assert re.search(r"^\[rank 1 of 2\] E +AssertionError: no reason", process.stderr, re.M)


def test_programs_have_a_time_limit(mpirun):
    program = "import os, time; os.write(1, f'pid {os.getpid()}\\n'.encode()); time.sleep(600)"
    begin = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as error_info:
        mpirun(2, "-c", program, timeout=2)
    assert time.monotonic() - begin < launching.HUNG_SECONDS
    pids = re.findall(r"^pid (\d+)$", error_info.value.stdout, re.M)
    assert len(pids) == 2
    while any(Path("/proc", pid).exists() for pid in pids):  # Open MPI reaps them a little later
        assert time.monotonic() - begin < launching.HUNG_SECONDS
        time.sleep(0.1)


def test_programs_see_the_environment_they_are_given(mpirun):
    program = "import os; os.write(1, (os.environ['GIVEN'] + '\\n').encode())"
    process = mpirun(2, "-c", program, env={"GIVEN": "value"})
    assert (process.returncode, process.stdout.split()) == (0, ["value", "value"])
