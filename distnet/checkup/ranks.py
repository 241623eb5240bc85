"""How the ranks of a job get on: hosts, cores that they share, kernels, code, clocks, memory."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from distnet.base.blas import one_blas_thread
from distnet.base.words import counted
from distnet.checkup.finding import Finding, error, ok, warning
from distnet.checkup.machine import SHARED_MEMORY, usable_cores
from distnet.parallel import Communicator
from distnet.parallel.errors import name_ranks
from distnet.parallel.segments import share
from distnet.training.fingerprint import (
    CODE_REMEDY,
    REMEDY,
    code_sha256,
    numerics_fingerprint,
)
from distnet.training.placement import placement

NUM_PINGS = 21
MAX_SKEW_SECONDS = 1.0
SHARED_BYTES = 1 << 20
BINDING = "mpirun --bind-to none, or mpirun --bind-to core with a core for each rank"

# Variables by which a batch system says on how many hosts a job runs.
NUM_HOSTS = ("SLURM_JOB_NUM_NODES", "SLURM_NNODES", "FLUX_JOB_NNODES")
OLD_HOSTFILE, HOSTFILE = "OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile"


@dataclass(frozen=True)
class Rank:
    """What a rank says of itself: its host and the cores there that it may run on, and more.

    quota: how many cores its container pays for, None for all; skew: how far the clock of its host
    is ahead of that of rank 0, in seconds; code: a hash of distnet's files; others by name.
    """

    host: str
    cores: frozenset[int]
    num_cores: int
    quota: float | None
    fingerprint: Mapping[str, str]
    code: str
    python: str
    skew: float


def ranks(comm: Communicator, environ: Mapping[str, str], expected_hosts: int) -> list[Finding]:
    """All of it, the same on every rank; all ranks have to call it."""
    skew = clock_skew(comm)
    everyone = comm.allgather(myself(comm, skew))
    found = [
        hosts(everyone, placement(comm), expected_hosts, environ),
        *cores(everyone),
        *alike(everyone),
        clocks(everyone),
    ]
    if comm.size > 1 and comm.node.count == 1:
        found.append(sharing(comm))
    return found


def myself(comm: Communicator, skew: float) -> Rank:
    """What this rank has to say."""
    usable, quota = usable_cores()
    with one_blas_thread():
        fingerprint = numerics_fingerprint()
    host = comm.processes[comm.rank].host
    number = os.cpu_count() or 1
    python = platform.python_version()
    return Rank(host, usable, number, quota, fingerprint, code_sha256(), python, skew)


def hosts(
    everyone: Sequence[Rank], where: str, expected: int, environ: Mapping[str, str]
) -> Finding:
    """Whether the ranks are on as many hosts as there should be.

    Launchers that do not find their list of hosts put all ranks on one, and everything works, only
    slowly.
    """
    found = len({rank.host for rank in everyone})
    text = f"{counted(len(everyone), 'rank')} on {where}"
    wanted, by = expected, "--expect-hosts"
    if not expected:
        wanted, by = hosts_of_the_job(environ)
    cure = "see which list of hosts the launcher has read; mpirun takes --hostfile FILE"
    if OLD_HOSTFILE in environ and HOSTFILE not in environ:
        cure = f"Open MPI 5 does not read {OLD_HOSTFILE}: export {HOSTFILE} in its place"
    if wanted and found != wanted:
        make = error if expected else warning
        return make("hosts", f"{text}, while {by} says {counted(wanted, 'host')}", cure)
    return ok("hosts", text)


def hosts_of_the_job(environ: Mapping[str, str]) -> tuple[int, str]:
    """On how many hosts a batch system says that this job runs, and where; 0 without one."""
    for name in NUM_HOSTS:
        if environ.get(name, "").isdecimal():
            return int(environ[name]), name
    try:
        listed = Path(environ["PBS_NODEFILE"]).read_text().split()
    except (KeyError, OSError):
        return 0, ""
    return len(set(listed)), "PBS_NODEFILE"


def cores(everyone: Sequence[Rank]) -> list[Finding]:
    """Whether each rank has a core to itself: one line, or one for each host where it has not."""
    names = dict.fromkeys(rank.host for rank in everyone)
    found = [_cores_of_host([rank for rank in everyone if rank.host == name]) for name in names]
    lacking = [each for each in found if each.cure]
    if lacking or len(found) == 1:
        return lacking or found
    return [ok("cores", f"each of {len(everyone)} ranks has one to itself, on {len(found)} hosts")]


def _cores_of_host(there: Sequence[Rank]) -> Finding:
    usable = frozenset[int]().union(*(rank.cores for rank in there))
    quota = min((rank.quota for rank in there if rank.quota), default=float(len(usable)))
    paid, number, all_cores = min(len(usable), quota), len(there), there[0].num_cores
    cores_of_host = f"{counted(all_cores, 'core')} of {there[0].host}"
    text = f"{counted(number, 'rank')} on {paid:g} of {cores_of_host}"
    if number <= paid:
        return ok("cores", text)
    if len(usable) < all_cores and number <= all_cores and quota >= len(usable):
        return warning("cores", f"{text}: the launcher has bound them to these", BINDING)
    return warning(
        "cores",
        f"{text}: they take turns, and more ranks are not faster",
        f"start at most {max(int(paid), 1)} on this host",
    )


def alike(everyone: Sequence[Rank]) -> Iterator[Finding]:
    """Whether all compute with the same kernels and the same code."""
    fingerprints = [dict(rank.fingerprint) for rank in everyone]
    unlike = [
        f"{key}: {_who(values)}"
        for key in fingerprints[0]
        if len(set(values := [each.get(key, "") for each in fingerprints])) > 1
    ]
    if unlike:
        text = f"the ranks differ in {'; '.join(unlike)}"
        yield error("kernels", text, f"{REMEDY}, or --reduction float32")
    elif len(everyone) > 1:
        yield ok("kernels", "the same on all ranks")
    for what, values in (
        ("distnet's code", [rank.code for rank in everyone]),
        ("Python", [rank.python for rank in everyone]),
    ):
        if len(set(values)) > 1:
            text = f"the ranks differ in {what}: {_who(values)}"
            yield error("code", text, CODE_REMEDY)


def clocks(everyone: Sequence[Rank]) -> Finding:
    """Whether times in files and logs mean the same on all hosts."""
    worst = max(range(len(everyone)), key=lambda rank: abs(everyone[rank].skew))
    skew = everyone[worst].skew
    if abs(skew) <= MAX_SKEW_SECONDS:
        return ok("clocks", f"within {max(abs(skew), 0.001):.3f} s of that of rank 0")
    return warning(
        "clocks",
        f"that of {everyone[worst].host} (rank {worst}) is {abs(skew):.1f} s "
        f"{'ahead of' if skew > 0 else 'behind'} that of rank 0: times in files mislead",
        "set them by NTP (chrony, systemd-timesyncd)",
    )


def sharing(comm: Communicator) -> Finding:
    """Whether the ranks of this host can add up gradients in memory that all of them see."""
    if share(comm, SHARED_BYTES) is not None:
        return ok("sums", "in memory that all ranks of this host share")
    if not SHARED_MEMORY.is_dir():
        return ok("sums", "as messages: ranks share memory on Linux alone")
    return warning(
        "sums",
        "the ranks of this host cannot share memory, so gradients travel as messages",
        "run them in one container, with a larger /dev/shm (docker run --shm-size=1g)",
    )


def clock_skew(comm: Communicator) -> float:
    """How far the clock of this host is ahead of that of rank 0, about as sharp as a barrier."""
    readings = []
    for _ in range(NUM_PINGS if comm.size > 1 else 1):
        comm.barrier()
        readings.append(time.time())
    of_zero = comm.allgather(readings)[0]
    return median(a - b for a, b in zip(readings, of_zero, strict=True))


def _who(values: Sequence[str]) -> str:
    """Each value with the ranks that have it."""
    return "; ".join(
        f"{value} on {name_ranks([rank for rank, own in enumerate(values) if own == value])}"
        for value in dict.fromkeys(values)
    )
