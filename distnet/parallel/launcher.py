"""Joins the job that a launcher started, or stays alone: `connect` is the way to a communicator.

mpi4py is imported only here and in `communicator`, and only if a launcher left its mark in the
environment: a process on its own needs no MPI library.

A launcher and the MPI library have to belong together. Open MPI's launcher with MPICH's library
dies inside MPI_Init; most other wrong pairs start N processes that each believe to be rank 0 of 1
and train N times the same network. So do launchers that know nothing of MPI. All of them are found
out here, before anything is computed: what their variables say is compared with what MPI says.
"""

from __future__ import annotations

import atexit
import importlib
import os
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from distnet.base.words import counted
from distnet.parallel.communicator import Communicator, SerialCommunicator
from distnet.parallel.errors import LaunchError, PlacementError
from distnet.parallel.failure import install_hook
from distnet.parallel.mpi_communicator import MPICommunicator
from distnet.parallel.recovery import can_survive_losses
from distnet.parallel.segments import remove_names


@dataclass(frozen=True)
class Launcher:
    """How a launcher tells a process its rank.

    rank: the variable with it; sizes: those that may hold the number of ranks; mark: one that no
    other launcher sets, by default `rank`.
    mpi: whether it is one of an MPI library, "yes", "no", or "maybe" one that MPI can be built for.
    One that is not may have been meant to start programs that have nothing to do with each other.
    """

    name: str
    rank: str
    sizes: tuple[str, ...]
    mark: str = ""
    mpi: str = "yes"


# PMI and PMIx are what launchers of several kinds speak, among them Open MPI's (PMIx), MPICH's and
# Cray's (PMI), so they come after those. SLURM_PROCID is 0 in batch scripts too, where no launcher
# was at work; the number of tasks of a step is set by srun alone.
LAUNCHERS = (
    Launcher("Open MPI", "OMPI_COMM_WORLD_RANK", ("OMPI_COMM_WORLD_SIZE",)),
    Launcher("MVAPICH", "MV2_COMM_WORLD_RANK", ("MV2_COMM_WORLD_SIZE",)),
    Launcher("MPICH", "PMI_RANK", ("PMI_SIZE",), mark="MPI_LOCALNRANKS"),
    Launcher("PMI", "PMI_RANK", ("PMI_SIZE",)),
    Launcher("PMIx", "PMIX_RANK", ("SLURM_STEP_NUM_TASKS", "JSM_NAMESPACE_SIZE")),
    Launcher("PALS", "PALS_RANKID", ("PMI_SIZE",), mpi="maybe"),
    Launcher("jsrun", "JSM_NAMESPACE_RANK", ("JSM_NAMESPACE_SIZE",), mpi="maybe"),
    Launcher("srun", "SLURM_PROCID", ("SLURM_STEP_NUM_TASKS",), mpi="maybe"),
    Launcher("torchrun", "RANK", ("WORLD_SIZE",), mark="WORLD_SIZE", mpi="no"),
)
MPICH_FAMILY = ("MPICH", "MVAPICH", "Intel MPI")
STRANGERS = {"Open MPI": MPICH_FAMILY, "MPICH": ("Open MPI",), "MVAPICH": ("Open MPI",)}


@dataclass(frozen=True)
class Launch:
    """What the launcher wrote into the environment; `size` is None where it does not say."""

    launcher: Launcher
    rank: int
    size: int | None

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Launch | None:
        """The launch of this process, None if it was started without a launcher.

        One that need not be of MPI counts only if it says that there are several processes.
        """
        for launcher in LAUNCHERS:
            rank = _number(environ, launcher.rank)
            if rank is None or (launcher.mark or launcher.rank) not in environ:
                continue
            sizes = [_number(environ, name) for name in launcher.sizes]
            size = next((size for size in sizes if size is not None), None)
            if launcher.mpi == "yes" or rank > 0 or (size or 1) > 1:
                return cls(launcher, rank, size)
        return None

    def error(self, found: str, remedy: str) -> LaunchError:
        size = "several" if self.size is None else self.size
        # Without a size, rank 0 of a torn job notices nothing, but rank 1 does.
        speaks = self.rank == (0 if self.size is not None else 1)
        if self.launcher.mpi != "yes":
            remedy += f"; if each process is to work on its own, unset {self.launcher.rank}"
        return LaunchError(
            f"started as rank {self.rank} of {size} by the launcher of {self.launcher.name}, "
            f"but {found}; {remedy}",
            speaks,
        )


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name, "")
    return int(value) if value.isdecimal() else None


def connect(environ: Mapping[str, str]) -> Communicator:
    """The communicator of all processes of this job; serial if no launcher started it.

    From then on an exception that ends one process ends all of them, see `failure.install_hook`;
    and one that comes to its end waits for the others, see `leaving`.

    Raises LaunchError in every process if mpi4py or an MPI library is missing, or if the launcher
    belongs to another MPI than the library, or to none.
    """
    launch = Launch.find(environ)
    if launch is None:
        return SerialCommunicator()
    if launch.launcher.mpi == "no":
        raise launch.error("that does not start ranks of MPI", _right_launcher("MPI"))
    is_alone = is_one_host(launch, environ)
    if is_alone:
        # Or UCX, which comes with MPICH, watches this process's memory for network cards, and to
        # begin with that rewrites eight functions of libc, with 5 ms of waiting awake after each.
        _tell_library(environ, "UCX_MEM_MMAP_HOOK_MODE", "none")
    mpi = _load_mpi(launch)
    vendor, version = mpi.get_vendor()
    library = f"{vendor} {'.'.join(map(str, version))}"
    _check_family(launch, vendor, library)
    if not mpi.Is_initialized():
        if is_alone and has_two_networks(mpi.Get_library_version()):
            # Both do nothing here, and UCX takes 20 ms longer to find out what there is.
            _tell_library(environ, "MPIR_CVAR_CH4_NETMOD", "ofi")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "suspicious MPI")  # checked here, more strictly
            # `turns` calls MPI from a thread of its own. And MPICH 5.0 lets go of a core while it
            # waits only at this level: at lower ones 4 ranks on 2 cores took 0.97 s for a sum of
            # 1 MB, not 0.4 ms.
            mpi.Init_thread(mpi.THREAD_MULTIPLE)
    _check_world(launch, mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size, library)
    comm = MPICommunicator(survives_losses=can_survive_losses(environ))
    install_hook(comm)
    atexit.register(comm.close)
    remove_names(comm)
    return comm


def working_alone(environ: Mapping[str, str]) -> str:
    """For a program that does not connect: one line if it was started as one rank of several.

    "" if it was not, or if this is not the rank that shall say so for all.
    """
    launch = Launch.find(environ)
    if launch is None or launch.rank > 0 or launch.size == 1:
        return ""
    return str(
        launch.error(
            "every process trains on its own, all the same",
            "make the program one of ranks, by distnet.run(main) and comm=comm, or start it once",
        )
    )


def expect_hosts(comm: Communicator, num_hosts: int) -> None:
    """Raises PlacementError, on all ranks, unless they run on exactly `num_hosts` hosts.

    Launchers that do not find their list of hosts put all ranks on one, and everything works, only
    slowly.
    """
    if comm.node.count != num_hosts:
        hosts = [process.host for process in comm.processes]
        names = ", ".join(f"{host} ({hosts.count(host)})" for host in dict.fromkeys(hosts))
        raise PlacementError(
            f"found {counted(comm.size, 'rank')} on {counted(comm.node.count, 'host')}, {names}, "
            f"expected {counted(num_hosts, 'host')}; see which list of hosts the launcher has read"
        )


def is_one_host(launch: Launch, environ: Mapping[str, str]) -> bool:
    """Whether MPICH's launcher says that all ranks are on this host: no message needs a network."""
    return launch.size is not None and _number(environ, "MPI_LOCALNRANKS") == launch.size


def has_two_networks(library: str) -> bool:
    """Whether an MPICH, by its description, can take UCX or libfabric; one alone is not named."""
    device = re.search(r"^MPICH Device:\s*ch4:(.*)$", library, re.MULTILINE)
    return device is not None and {"ucx", "ofi"} <= set(re.split(r"[\s,]+", device[1].strip()))


def _tell_library(environ: Mapping[str, str], name: str, value: str) -> None:
    """Sets a variable that libraries of C read, unless the user has."""
    if name not in environ:
        os.putenv(name, value)


def _load_mpi(launch: Launch) -> ModuleType:
    """mpi4py.MPI, not yet initialised: only then is the library's name known before MPI_Init."""
    try:
        options = importlib.import_module("mpi4py").rc
        options.initialize, options.finalize = False, True
        return importlib.import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise launch.error(
            f"MPI cannot be loaded here ({reason})",
            "install it with: pip install mpi4py mpich, or start the program without mpirun",
        ) from error


def _check_family(launch: Launch, vendor: str, library: str) -> None:
    """Raises LaunchError if the library is known not to work under this launcher."""
    if vendor in STRANGERS.get(launch.launcher.name, ()):
        raise launch.error(f"mpi4py uses {library}", _right_launcher(vendor))


def _check_world(launch: Launch, rank: int, size: int, library: str) -> None:
    """Raises LaunchError unless the launcher and the MPI library count the ranks alike."""
    expected = launch.rank, size if launch.size is None else launch.size
    if (rank, size) != expected:
        found = f"mpi4py uses {library}, where this is rank {rank} of {size}"
        raise launch.error(found, _right_launcher(library.rsplit(" ", 1)[0]))


def _right_launcher(vendor: str) -> str:
    beside_python = Path(sys.executable).with_name("mpirun")
    name = str(beside_python) if beside_python.exists() else f"the mpirun of {vendor}"
    return f"start it with {name}"
