from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from distnet.parallel import segments
from distnet.parallel.segments import mapped, share

PROGRAM = str(Path(__file__).with_name("killed_program.py"))
KILLED_IN_SETUP = """
import os, signal, sys
from distnet.parallel import run_command, segments

def main(comm):
    calls, gather = [], comm.allgather

    def gather_or_die(value):
        calls.append(value)
        if len(calls) == int(sys.argv[2]) and comm.rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return gather(value)

    segments.PREFIX = sys.argv[3]
    if sys.argv[1] == "named":
        segments._unnamed_file = segments._named_file
    comm.allgather = gather_or_die
    segments.share(comm, 1 << 16)
    comm.barrier()

sys.exit(run_command(main, os.environ))
"""


@pytest.fixture
def prefix(monkeypatch):
    """Of files that no other job on this host makes or removes."""
    prefix = f"test_{os.getpid()}_"
    monkeypatch.setattr(segments, "PREFIX", prefix)
    return prefix


def names(prefix):
    return {path.name for path in Path("/dev/shm").glob(f"{prefix}*")}


def refuse():
    raise OSError("not permitted")


@pytest.fixture(params=["unnamed", "named"])
def kind(request, monkeypatch):
    """Both ways; a rank that may not look into another one finds another file there."""
    if request.param == "named":
        monkeypatch.setattr(segments, "_unnamed_file", refuse)
    return request.param


@pytest.mark.mpi(min_size=2)
def test_segments_have_no_names_any_more_but_are_used(comm):
    assert mapped() == set()
    maps = Path("/proc/self/maps").read_text()
    assert re.search(r"/dev/shm/(mpich_shm_|sm_segment\.)\S+ \(deleted\)", maps)


@pytest.mark.mpi(min_size=3)
def test_all_ranks_see_shared_memory_and_it_has_no_name(comm, kind):
    memory = share(comm, 100)
    assert bytes(memory) == bytes(100)
    comm.barrier()
    memory[comm.rank] = comm.rank + 1
    comm.barrier()
    assert bytes(memory[:4]) == bytes([1, 2, 3, 0])
    maps = Path("/proc/self/maps").read_text()
    assert re.search(r" /(memfd:|dev/shm/)distnet_\S* \(deleted\)", maps)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("num_bytes", [1 << 50, 1])  # more than there is; none for one of two ranks
def test_no_room_is_no_memory_for_all(comm, kind, num_bytes):
    assert share(comm, num_bytes) is None


@pytest.mark.mpi(min_size=2)
def test_another_file_at_the_same_path_is_not_touched(comm, monkeypatch, tmp_path):
    """As where processes have their own numbers: /proc leads each rank to a file of its own."""
    other = tmp_path / "other"
    other.write_text("precious")
    if comm.rank == 1:
        stat = os.stat
        monkeypatch.setattr(os, "stat", lambda path: stat(other if "/fd/" in str(path) else path))
    memory = share(comm, 100)  # by its name
    assert memory is not None and other.read_text() == "precious"


@pytest.mark.parametrize("call", [1, 2])
def test_a_job_that_is_killed_while_it_sets_up_leaves_no_file(mpirun, prefix, call):
    assert mpirun(2, "-c", KILLED_IN_SETUP, "unnamed", str(call), prefix).returncode != 0
    assert names(prefix) == set()


def test_a_name_that_was_left_is_removed_by_the_next_job(mpirun, prefix):
    assert mpirun(2, "-c", KILLED_IN_SETUP, "named", "2", prefix).returncode != 0
    assert len(names(prefix)) == 1
    with segments._named_file() as path:
        segments._remove_abandoned()
        assert names(prefix) == {Path(path).name}, "its maker lives"
    assert names(prefix) == set()


def test_a_killed_job_leaves_no_segments(mpirun):
    before = set(Path("/dev/shm").iterdir())
    process = mpirun(2, PROGRAM)
    assert process.returncode != 0
    used = set(process.stdout.split())
    assert used, process.stderr
    left = {str(path) for path in set(Path("/dev/shm").iterdir()) - before}
    assert not used & left
