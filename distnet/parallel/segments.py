"""Memory that the ranks of a host share, freed with the last process that uses it.

It is made of files in /dev/shm, whose names are removed as soon as all ranks have them mapped: the
kernel frees the memory when the last process ends, however it does.

MPI exchanges the messages of a host through such files too, which it removes in MPI_Finalize. A job
that is killed leaves them there, a few megabytes for each rank, and they add up. So their names are
removed in the same way, as UCX does with its own: `launcher.connect` calls `remove_names`. Seen to
work with MPICH 5.0 and Open MPI 5.0; does nothing where there is no /proc.
"""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from pathlib import Path

from distnet.parallel.communicator import Communicator

NAMES = re.compile(r"/dev/shm/(?:mpich_shm_|sm_segment\.)\S+$", re.MULTILINE)  # not "(deleted)"


def share(comm: Communicator, num_bytes: int) -> mmap.mmap | None:
    """Memory, at first zero, that all ranks of a group on one host read and write.

    None, on all of them, where that cannot be had: no /dev/shm, no room in it, one for each rank.
    """
    name = None
    if comm.rank == 0:
        try:
            file, name = tempfile.mkstemp(prefix="distnet_", dir="/dev/shm")
            os.close(file)
        except OSError:
            name = None
    name = comm.allgather(name)[0]
    memory = _map(Path(name), comm, num_bytes) if name else None
    is_shared = all(comm.allgather(memory is not None))
    if name is not None and comm.rank == 0:
        Path(name).unlink()
    return memory if is_shared else None


def _map(path: Path, comm: Communicator, num_bytes: int) -> mmap.mmap | None:
    """Every rank takes its part of the pages, near its core, now: later it would be a SIGBUS."""
    start, stop = (num_bytes * each // comm.size for each in (comm.rank, comm.rank + 1))
    try:
        with path.open("r+b") as file:
            os.ftruncate(file.fileno(), num_bytes)
            os.posix_fallocate(file.fileno(), start, stop - start)
            return mmap.mmap(file.fileno(), num_bytes)
    except (OSError, ValueError):
        return None


def remove_names(comm: Communicator) -> None:
    """Removes the names of what all ranks of this host have mapped; all ranks have to call it."""
    host = comm.processes[comm.rank].host
    everywhere = comm.allgather(mapped())
    ours = [
        names
        for names, process in zip(everywhere, comm.processes, strict=True)
        if process.host == host
    ]
    for name in set.intersection(*ours):
        Path(name).unlink(missing_ok=True)


def mapped() -> set[str]:
    """MPI's segments that this process has mapped, by their names."""
    try:
        return set(NAMES.findall(Path("/proc/self/maps").read_text()))
    except OSError:
        return set()
