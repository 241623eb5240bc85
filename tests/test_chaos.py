"""A few rounds of `tests.chaos`, of all kinds that the MPI library at hand can survive."""

from __future__ import annotations

import platform
import signal
import sys
from pathlib import Path

import chaos
import pytest

ELASTIC = ("kill", "again", "stop", "kill", "restart", "again")
RESTART = ("restart", "restart", "restart")


@pytest.mark.mpi_launch
def test_so_does_one_that_synchronises_rarely(tmp_path):
    kinds = ("kill", "again", "kill") if chaos.is_elastic() else RESTART[:1]
    rounds = chaos.run_rounds(tmp_path, kinds, seed=3, sync="local")
    assert [result for result in rounds if result.problem] == []


@pytest.mark.mpi_launch
def test_a_disturbed_run_ends_as_an_undisturbed_one(tmp_path):
    kinds = ELASTIC if chaos.is_elastic() else RESTART
    rounds = chaos.run_rounds(tmp_path, kinds, seed=7)
    assert [result for result in rounds if result.problem] == []
    assert len(rounds) == len(kinds)


@pytest.mark.mpi_launch
def test_ranks_of_unlike_kernels_go_on_without_a_lost_one(tmp_path: Path) -> None:
    """In portable arithmetic: who takes over the work of a rank computes its bits."""
    if not chaos.is_elastic() or platform.machine() != "x86_64":
        pytest.skip("needs Open MPI 5, and kernels for x86-64")
    portable = ["--arithmetic", "portable"]
    expected = chaos.undisturbed(tmp_path / "alone", "step", portable)
    python = tmp_path / "python-of-a-rank"
    python.write_text(
        "#!/bin/sh\n"
        "case $OMPI_COMM_WORLD_RANK in [02]) kernels=Prescott ;; *) kernels=Nehalem ;; esac\n"
        f'OPENBLAS_CORETYPE=$kernels exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    settings = {"supervised": False, "sync": "step", "more": portable, "python": str(python)}
    job = chaos.Job(tmp_path / "job", **settings)
    try:
        job.wait_for_step(20)
        chaos.strike(job.ranks(), [1, 2], signal.SIGKILL)
        job.wait_for_recovery(2)
        job.finish()
    finally:
        job.clean_up()
    chaos.check_result(tmp_path / "job", expected, job.every)
