from __future__ import annotations

import re
from pathlib import Path

import pytest

from distnet.parallel.segments import mapped, share

PROGRAM = str(Path(__file__).with_name("killed_program.py"))


@pytest.mark.mpi(min_size=2)
def test_segments_have_no_names_any_more_but_are_used(comm):
    assert mapped() == set()
    maps = Path("/proc/self/maps").read_text()
    assert re.search(r"/dev/shm/(mpich_shm_|sm_segment\.)\S+ \(deleted\)", maps)


@pytest.mark.mpi(min_size=3)
def test_all_ranks_see_shared_memory_and_it_has_no_name(comm):
    memory = share(comm, 100)
    assert bytes(memory) == bytes(100)
    comm.barrier()
    memory[comm.rank] = comm.rank + 1
    comm.barrier()
    assert bytes(memory[:4]) == bytes([1, 2, 3, 0])
    assert not list(Path("/dev/shm").glob("distnet_*"))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("num_bytes", [1 << 50, 1])  # more than there is; none for one of two ranks
def test_no_room_is_no_memory_for_all(comm, num_bytes):
    assert share(comm, num_bytes) is None
    comm.barrier()
    assert not list(Path("/dev/shm").glob("distnet_*"))


def test_a_killed_job_leaves_no_segments(mpirun):
    before = set(Path("/dev/shm").iterdir())
    process = mpirun(2, PROGRAM)
    assert process.returncode != 0
    used = set(process.stdout.split())
    assert used, process.stderr
    left = {str(path) for path in set(Path("/dev/shm").iterdir()) - before}
    assert not used & left
