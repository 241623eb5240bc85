"""MPI's shared memory, freed with the last process that uses it.

The ranks of a host exchange messages through files in /dev/shm, which MPI removes in MPI_Finalize.
A job that is killed leaves them there, a few megabytes for each rank, and they add up. So their
names are removed as soon as all ranks of the host have them mapped, as UCX does with its own: the
kernel frees the memory when the last process ends, however it does. `launcher.connect` calls this.

Seen to work with MPICH 5.0 and Open MPI 5.0. Does nothing where there is no /proc.
"""

from __future__ import annotations

import re
from pathlib import Path

from distnet.parallel.communicator import Communicator

NAMES = re.compile(r"/dev/shm/(?:mpich_shm_|sm_segment\.)\S+$", re.MULTILINE)  # not "(deleted)"


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
