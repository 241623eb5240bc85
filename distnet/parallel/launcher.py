"""Joins the job that mpirun started, or stays alone: `connect` is the way to a communicator.

mpi4py is imported only here and in `communicator`, and only if a launcher left its mark in the
environment: a process on its own needs no MPI library.

A launcher and the MPI library have to belong together. Open MPI's launcher with MPICH's library
dies inside MPI_Init; most other wrong pairs start N processes that each believe to be rank 0 of 1
and train N times the same network. Both are found out here, before anything is computed.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from distnet.parallel.communicator import Communicator, MPICommunicator, SerialCommunicator
from distnet.parallel.errors import LaunchError
from distnet.parallel.recovery import can_survive_losses
from distnet.parallel.segments import remove_names

# Launcher, a variable that only it sets, those with the rank and the number of ranks. PMI and PMIx
# are what launchers of several kinds speak, among them Open MPI's (PMIx) and MPICH's (PMI), so they
# come last. Slurm sets SLURM_PROCID in batch scripts too: that is no sign of a launcher.
MARKS = (
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("MPICH", "MPI_LOCALNRANKS", "PMI_RANK", "PMI_SIZE"),
    ("PMI", "PMI_RANK", "PMI_RANK", "PMI_SIZE"),
    ("PMIx", "PMIX_RANK", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
)
MPICH_FAMILY = ("MPICH", "MVAPICH", "Intel MPI")
STRANGERS = {"Open MPI": MPICH_FAMILY, "MPICH": ("Open MPI",), "MVAPICH": ("Open MPI",)}


@dataclass(frozen=True)
class Launch:
    """What the launcher wrote into the environment; `size` is None where it does not say."""

    launcher: str
    rank: int
    size: int | None

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Launch | None:
        """The launch of this process, None if it was started without a launcher."""
        for launcher, mark, rank, size in MARKS:
            if mark in environ and rank in environ:
                num_ranks = int(environ[size]) if size in environ else None
                return cls(launcher, int(environ[rank]), num_ranks)
        return None

    def error(self, found: str, remedy: str) -> LaunchError:
        size = "several" if self.size is None else self.size
        # Without a size, rank 0 of a torn job notices nothing, but rank 1 does.
        speaks = self.rank == (0 if self.size is not None else 1)
        return LaunchError(
            f"started as rank {self.rank} of {size} by the launcher of {self.launcher}, "
            f"but {found}; {remedy}",
            speaks,
        )


def connect(environ: Mapping[str, str]) -> Communicator:
    """The communicator of all processes of this job; serial if no launcher started it.

    Raises LaunchError in every process if mpi4py or an MPI library is missing, or if the launcher
    belongs to another MPI than the library.
    """
    launch = Launch.find(environ)
    if launch is None:
        return SerialCommunicator()
    mpi = _load_mpi(launch)
    vendor, version = mpi.get_vendor()
    library = f"{vendor} {'.'.join(map(str, version))}"
    _check_family(launch, vendor, library)
    if not mpi.Is_initialized():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "suspicious MPI")  # checked here, more strictly
            # `turns` calls MPI from a thread of its own. And MPICH 5.0 lets go of a core while it
            # waits only at this level: at lower ones 4 ranks on 2 cores took 0.97 s for a sum of
            # 1 MB, not 0.4 ms.
            mpi.Init_thread(mpi.THREAD_MULTIPLE)
    _check_world(launch, mpi.COMM_WORLD.rank, mpi.COMM_WORLD.size, library)
    comm = MPICommunicator(survives_losses=can_survive_losses(environ))
    remove_names(comm)
    return comm


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
    if vendor in STRANGERS.get(launch.launcher, ()):
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
