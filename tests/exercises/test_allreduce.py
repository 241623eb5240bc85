"""Exercise 1 finds what usually goes wrong."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from distnet.exercises import allreduce

ALL_TO_ALL = """
import numpy as np
def allreduce(send, receive, comm):
    receive[:] = send
    for other in range(comm.size):
        if other != comm.rank:
            arrived = np.empty_like(send)
            comm.Sendrecv(send, other, recvbuf=arrived, source=other)
            receive += arrived
"""
MPIS_OWN = "def allreduce(send, receive, comm): comm.Allreduce(send, receive)\n"
FAILING = "def allreduce(send, receive, comm):\n    raise KeyError('piece 3')\n"
STUCK = "def allreduce(send, receive, comm): comm.Recv(receive, source=comm.size - 1)\n"


def texts(tmp_path, code, most=9):
    file = tmp_path / "mine.py"
    file.write_text(code)
    return [f"{each.grade}: {each.text}" for each in islice(allreduce.check(file), most)]


@pytest.mark.mpi_launch
def test_what_sends_too_much_is_right_but_not_solved(tmp_path):
    sums, sent = texts(tmp_path, ALL_TO_ALL, most=2)
    assert sums.startswith("right: ")
    assert sent.startswith("not yet: 4 ranks, 1200 numbers: a rank sends 3.00 numbers")


@pytest.mark.mpi_launch
@pytest.mark.parametrize(
    "code, words",
    [
        (MPIS_OWN, "AttributeError: comm.Allreduce is what the exercise is to do without"),
        (FAILING, "KeyError: 'piece 3'"),
    ],
)
def test_what_fails_on_a_rank_is_told(tmp_path, code, words):
    (only,) = texts(tmp_path, code)
    assert only.startswith("not yet: allreduce has failed on a rank: ") and words in only


@pytest.mark.mpi_launch
def test_what_never_returns_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(allreduce, "LIMIT_SECONDS", 5)
    (only,) = texts(tmp_path, STUCK)
    assert re.search("has not returned within 5 s. Most often two ranks wait", only)
