from __future__ import annotations

import time

import chaos
import pytest

from distnet.parallel.shared_map import shared_map

LOSES_A_RANK = """
import os, signal, sys, time
from distnet.parallel import RankLost, run_command, shared_map

def command(comm):
    def compute(item):
        if item > 4 and comm.rank == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)

    try:
        shared_map(comm, compute, range(100))
    except RankLost:
        comm.repair()
        print(f"{comm.size} left", flush=True)
    return 0

sys.exit(run_command(command, os.environ))
"""


@pytest.mark.parametrize("num_items", [0, 1, 2, 7])
def test_it_is_map_on_every_rank(any_comm, num_items):
    items = [f"item {i}" for i in range(num_items)]
    assert shared_map(any_comm, str.upper, items) == [item.upper() for item in items]


@pytest.mark.mpi(min_size=3)
def test_each_item_is_computed_once(comm):
    computed = []
    shared_map(comm, computed.append, range(20))
    everyones = comm.allgather(computed)
    assert sorted(item for each in everyones for item in each) == list(range(20))


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("busy", [0, 1])
def test_a_busy_rank_leaves_the_rest_to_the_others(comm, busy, tmp_path):
    """Also rank 0, which has the list: while it computes it makes no call of MPI.

    Its first item is not done before the others are: whoever waited for it would wait for ever.
    """
    directory = comm.allgather(tmp_path)[0]

    def compute(item):
        while comm.rank == busy and len(list(directory.iterdir())) < 9:
            time.sleep(0.01)
        (directory / str(item)).touch()
        return comm.rank

    ranks = shared_map(comm, compute, range(10))
    assert ranks.count(busy) <= 1


@pytest.mark.mpi(min_size=2)
def test_turns_begin_anew_each_time(comm):
    for _ in range(50):
        assert shared_map(comm, abs, [-1, -2, -3]) == [1, 2, 3]


@pytest.mark.parametrize("rank", [0, 1])
def test_nobody_waits_for_tasks_of_a_lost_rank(mpirun, rank):
    """Where ranks can be lost (ULFM) the others learn of it; elsewhere the job ends."""
    elastic = chaos.is_elastic()
    options = ("--with-ft", "ulfm") if elastic else ()
    process = mpirun(3, "-c", LOSES_A_RANK, str(rank), options=options)
    assert (process.returncode == 0) == elastic
    assert process.stdout.count("2 left") == (2 if elastic else 0)
