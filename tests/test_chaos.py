"""A few rounds of `tests.chaos`, of all kinds that the MPI library at hand can survive."""

from __future__ import annotations

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
