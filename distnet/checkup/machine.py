"""What one process finds around itself: Python, kernels, cores, memory, places to write."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from distnet.base.blas import ACCELERATE, one_blas_thread
from distnet.base.words import counted
from distnet.checkup.finding import Finding, error, ok, warning
from distnet.data.cache import default_cache_dir
from distnet.training.fingerprint import UNKNOWN, numerics_fingerprint
from distnet.training.known_answer import ForeignArithmeticError, check_machine

MIB = 1 << 20
PROCESS_BYTES = 256 * MIB  # what training DeepConvNet on MNIST takes, with some room
SHARED_BYTES = 8 * MIB  # a rank: MPI's messages within a host, a few megabytes
SHARED_MEMORY = Path("/dev/shm")
CGROUP = Path("/sys/fs/cgroup")


def machine(environ: Mapping[str, str], num_ranks: int = 1) -> Iterator[Finding]:
    """All of it, for one of `num_ranks` processes on this host."""
    yield ok("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield kernels(environ)
    yield arithmetic()
    yield memory(num_ranks)
    yield shared_memory(SHARED_MEMORY, num_ranks)
    yield cache(default_cache_dir(environ))


def kernels(environ: Mapping[str, str]) -> Finding:
    """Which NumPy and BLAS compute, and whether it is on one thread."""
    with one_blas_thread():
        found = numerics_fingerprint()
    blas = f"{found['blas']} {found['blas_version']} {found['blas_architecture']}"
    text = f"NumPy {found['numpy']}, {blas}"
    threads = found["blas_threads"]
    is_told = found["blas"] == ACCELERATE and environ.get("VECLIB_MAXIMUM_THREADS") == "1"
    if threads == "1" or is_told:
        return ok("kernels", f"{text}, one thread a rank")
    told = "is not known" if threads == UNKNOWN else f"stays at {threads}"
    return warning(
        "kernels",
        f"{text}: its number of threads {told}; several threads a rank take each other's cores",
        "before Python starts, export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 "
        "VECLIB_MAXIMUM_THREADS=1",
    )


def arithmetic() -> Finding:
    """Whether `--arithmetic portable` gives the bits here that it gives everywhere."""
    try:
        check_machine()
    except ForeignArithmeticError as failure:
        return warning("arithmetic", str(failure), "compute in float32, the default")
    return ok("arithmetic", "portable arithmetic has the known bits here")


def memory(num_ranks: int) -> Finding:
    """Whether there is enough for all ranks of this host."""
    free = available_bytes()
    if free is None:
        return ok("memory", "how much is free is not known")
    if free >= num_ranks * PROCESS_BYTES:
        return ok("memory", f"{free / 1e9:.1f} GB free")
    return warning(
        "memory",
        f"{free // MIB} MiB free for {counted(num_ranks, 'rank')} of about "
        f"{PROCESS_BYTES // MIB} MiB",
        "start fewer ranks on this host, or give the container more memory",
    )


def available_bytes() -> int | None:
    """What this process may still take: of the host, and of its container; None if not known."""
    limits = []
    lines = _words(Path("/proc/meminfo"))
    if "MemAvailable:" in lines:
        limits.append(int(lines[lines.index("MemAvailable:") + 1]) * 1024)
    most, used = _words(CGROUP / "memory.max"), _words(CGROUP / "memory.current")
    if most and used and most[0].isdigit():
        limits.append(max(int(most[0]) - int(used[0]), 0))
    return min(limits, default=None)


def shared_memory(directory: Path, num_ranks: int) -> Finding:
    """Whether the ranks of a host can exchange messages in memory, for which MPI needs files."""
    if not directory.is_dir():
        return ok("shared memory", f"no {directory} on this system")
    remedy = (
        "containers: docker run --shm-size=1g, in Kubernetes an emptyDir with medium: Memory at "
        "/dev/shm"
    )
    if problem := unwritable(directory):
        return warning("shared memory", f"{directory} cannot be written ({problem})", remedy)
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < num_ranks * SHARED_BYTES:
        return warning(
            "shared memory",
            f"{directory} has {free // MIB} MiB free, {counted(num_ranks, 'rank')} may need "
            f"{num_ranks * SHARED_BYTES // MIB}; one without dies of a bus error",
            f"{remedy}; or remove what killed jobs have left there",
        )
    return ok("shared memory", f"{directory} has {free / 1e9:.1f} GB free")


def cache(directory: Path | None) -> Finding:
    """Whether data can be unpacked once for all processes of this host, and downloads be kept."""
    cure = "export XDG_CACHE_HOME to a directory that can be written"
    if directory is None:
        return warning("cache", "the environment names no home directory to keep data in", cure)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        problem = unwritable(directory)
    except OSError as failure:
        problem = failure.strerror or str(failure)
    if problem:
        return warning(
            "cache",
            f"{directory} cannot be written ({problem}): every process unpacks data of its own",
            cure,
        )
    return ok("cache", str(directory))


def results(directory: Path) -> Finding:
    """Whether a run that is started here can write what it finds."""
    if problem := unwritable(directory):
        return error(
            "results",
            f"{directory} cannot be written ({problem}), and runs write to runs/ in it",
            "change to another directory, or give --out DIR",
        )
    return ok("results", f"{directory} can be written")


def usable_cores() -> tuple[frozenset[int], float | None]:
    """The cores on which this process may run, and how many of them its container pays for."""
    if hasattr(os, "sched_getaffinity"):
        cores = frozenset(os.sched_getaffinity(0))
    else:
        cores = frozenset(range(os.cpu_count() or 1))
    quota = _words(CGROUP / "cpu.max")
    if len(quota) == 2 and quota[0].isdigit():
        return cores, int(quota[0]) / int(quota[1])
    return cores, None


def unwritable(directory: Path) -> str:
    """Why no file can be made in a directory; "" if one can."""
    try:
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as failure:
        return failure.strerror or str(failure)
    return ""


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
