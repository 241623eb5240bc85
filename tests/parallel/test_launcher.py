from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from distnet.parallel import LaunchError, SerialCommunicator, connect
from distnet.parallel.launcher import Launch, _check_family, _check_world

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "2"}
MPICH = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "4", "MPI_LOCALRANKID": "2"}
SLURM_PMI = {"PMI_RANK": "2", "PMI_SIZE": "4"}
SLURM_PMIX = {"PMIX_RANK": "2", "SLURM_STEP_NUM_TASKS": "4"}
UNSIZED_PMIX = {"PMIX_RANK": "2"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (OPEN_MPI, Launch("Open MPI", 2, 4)),
        (MPICH, Launch("MPICH", 2, 4)),
        (SLURM_PMI, Launch("PMI", 2, 4)),
        (SLURM_PMIX, Launch("PMIx", 2, 4)),
        (UNSIZED_PMIX, Launch("PMIx", 2, None)),
        ({"SLURM_PROCID": "0", "PATH": "/usr/bin"}, None),
    ],
)
def test_launchers_are_known_by_their_variables(environ, expected):
    assert Launch.find(environ) == expected


def test_without_a_launcher_the_communicator_is_serial():
    assert isinstance(connect({}), SerialCommunicator)


def test_mpi4py_is_not_imported_without_a_launcher():
    code = (
        "import sys, distnet.parallel as p; p.connect({}); "
        "sys.exit(any(name.split('.')[0] == 'mpi4py' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("launch", [Launch("MPICH", 2, 4), Launch("PMIx", 2, None)])
def test_a_torn_job_is_found_out(launch):
    with pytest.raises(LaunchError, match=r"MPI 9.9, where this is rank 0 of 1; start it with .+"):
        _check_world(launch, rank=0, size=1, library="Open MPI 9.9")


def test_a_whole_job_is_accepted():
    _check_world(Launch("MPICH", 2, 4), rank=2, size=4, library="MPICH 5.0")
    _check_world(Launch("PMIx", 2, None), rank=2, size=4, library="MPICH 5.0")


@pytest.mark.parametrize(
    ("launcher", "vendor"),
    [("Open MPI", "MPICH"), ("MPICH", "Open MPI"), ("Open MPI", "Intel MPI")],
)
def test_strangers_are_found_out_before_init(launcher, vendor):
    with pytest.raises(LaunchError, match=f"launcher of {launcher}, but mpi4py uses {vendor} 5.0"):
        _check_family(Launch(launcher, 0, 4), vendor, f"{vendor} 5.0")


@pytest.mark.parametrize(
    ("launcher", "vendor"), [("Open MPI", "Open MPI"), ("MPICH", "Intel MPI"), ("PMI", "Open MPI")]
)
def test_other_pairs_may_initialise(launcher, vendor):
    _check_family(Launch(launcher, 0, 4), vendor, f"{vendor} 5.0")


@pytest.mark.parametrize("size", [4, None])
def test_one_process_speaks_for_all(size):
    # Without a size, rank 0 of a torn job does not notice that it is torn.
    errors = [Launch("PMIx", rank, size).error("found", "remedy") for rank in range(4)]
    assert [error.speaks for error in errors] == [rank == (size is None) for rank in range(4)]


@pytest.mark.parametrize("missing", ["mpi4py", "mpi4py.MPI"])
def test_missing_mpi_is_a_launch_error(monkeypatch, missing):
    load = importlib.import_module

    def fail(name):
        if name == missing:
            raise ImportError(f"cannot load {missing}\nfirst tried\nthen tried")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(LaunchError, match=rf"\(cannot load {missing}\); install it with: pip"):
        connect(MPICH)


@pytest.mark.mpi_launch
@pytest.mark.parametrize(
    "environ", [OPEN_MPI, MPICH, SLURM_PMI], ids=["Open MPI", "MPICH", "Slurm"]
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_foreign_launcher_ends_in_one_line(tmp_path, environ, rank):
    """Each process of a torn job, as it sees itself: one speaks, all end with exit code 2."""
    ranks = {name: str(rank) for name in environ if name.endswith("RANK")}
    shared_memory = {"OMPI_MCA_btl_sm_backing_directory": str(tmp_path)}  # it leaves some behind
    code = "import os, sys, distnet.parallel as p; sys.exit(p.run_command(print, os.environ))"
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ, **ranks, **shared_memory},
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("distnet: error:")]
    assert (process.returncode, process.stdout, len(lines)) == (2, "", rank == 0)
