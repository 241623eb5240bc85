"""Memory that the ranks of a host share, freed with the last process that uses it.

It is a file that exists in memory alone and has no name (memfd_create): rank 0 makes it, the others
open it through /proc, and the kernel frees it with the last process, however that ends. Where a
rank may not look into the processes of others, as in containers of their own, it is a file in
/dev/shm, whose name is removed as soon as all ranks have it mapped. A job that is killed in that
moment leaves the name; the next job that makes such a file removes it.

MPI exchanges the messages of a host through files in /dev/shm too, and removes them in
MPI_Finalize. A job that is killed leaves them there, a few megabytes for each rank, and they add
up. So their names are removed in the same way, as UCX does with its own: `launcher.connect` calls
`remove_names`. Seen to work with MPICH 5.0 and Open MPI 5.0; does nothing where there is no /proc.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from distnet.parallel.communicator import Communicator

DIRECTORY, PREFIX = "/dev/shm", "distnet_"
NAMES = re.compile(r"/dev/shm/(?:mpich_shm_|sm_segment\.)\S+$", re.MULTILINE)  # not "(deleted)"

Identity = tuple[int, int]  # device and number of a file


def share(comm: Communicator, num_bytes: int) -> mmap.mmap | None:
    """Memory, at first zero, that all ranks of a group on one host read and write.

    None, on all of them, where that cannot be had: not Linux, no room, no byte for each rank.
    """
    if num_bytes > _physical_memory():
        return None  # asked for it, the kernel would rather kill processes than refuse
    return _share_file(comm, num_bytes, _unnamed_file) or _share_file(comm, num_bytes, _named_file)


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _share_file(
    comm: Communicator, num_bytes: int, make: Callable[[], AbstractContextManager[str]]
) -> mmap.mmap | None:
    """Shares memory by a file that rank 0 makes, for as long as the others need to map it."""
    with ExitStack() as stack:
        file = None
        if comm.rank == 0:
            with suppress(OSError):
                path = stack.enter_context(make())
                file = path, _identity(path)
        file = comm.allgather(file)[0]
        memory = _map(comm, num_bytes, *file) if file else None
        is_shared = all(comm.allgather(memory is not None))
    return memory if is_shared else None


@contextmanager
def _unnamed_file() -> Iterator[str]:
    """The path by which processes that see this one can open it."""
    if sys.platform != "linux":
        raise OSError("no file without a name, and no /proc, but on Linux")
    file = os.memfd_create(PREFIX)
    try:
        yield f"/proc/{os.getpid()}/fd/{file}"
    finally:
        os.close(file)


@contextmanager
def _named_file() -> Iterator[str]:
    """The path of a file that is locked as long as its maker lives and its name exists."""
    _remove_abandoned()
    file, path = tempfile.mkstemp(prefix=PREFIX, dir=DIRECTORY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path
    finally:
        os.unlink(path)
        os.close(file)


def _remove_abandoned() -> None:
    """Removes the names that jobs have left which were killed before they could."""
    for path in Path(DIRECTORY).glob(f"{PREFIX}*"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _identity(path: str) -> Identity:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _map(comm: Communicator, num_bytes: int, path: str, identity: Identity) -> mmap.mmap | None:
    """Every rank takes its part of the pages, near its core, now: later it would be a SIGBUS.

    In a container the same path may lead to another file.
    """
    if sys.platform != "linux":
        return None
    start, stop = (num_bytes * each // comm.size for each in (comm.rank, comm.rank + 1))
    try:
        if _identity(path) != identity:
            return None
        with open(path, "r+b") as file:
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
