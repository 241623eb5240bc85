from __future__ import annotations

import re
from pathlib import Path

import pytest

from distnet.parallel.segments import mapped

PROGRAM = str(Path(__file__).with_name("killed_program.py"))


@pytest.mark.mpi(min_size=2)
def test_segments_have_no_names_any_more_but_are_used(comm):
    assert mapped() == set()
    maps = Path("/proc/self/maps").read_text()
    assert re.search(r"/dev/shm/(mpich_shm_|sm_segment\.)\S+ \(deleted\)", maps)


def test_a_killed_job_leaves_no_segments(mpirun):
    before = set(Path("/dev/shm").iterdir())
    process = mpirun(2, PROGRAM)
    assert process.returncode != 0
    used = set(process.stdout.split())
    assert used, process.stderr
    left = {str(path) for path in set(Path("/dev/shm").iterdir()) - before}
    assert not used & left
