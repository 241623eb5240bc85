from __future__ import annotations

import importlib
import os
import subprocess
import sys

import launching
import pytest

from distnet.parallel import (
    LaunchError,
    PlacementError,
    SerialCommunicator,
    connect,
    expect_hosts,
    working_alone,
)
from distnet.parallel.communicator import Node, Process
from distnet.parallel.launcher import (
    LAUNCHERS,
    Launch,
    _check_family,
    _check_world,
    has_two_networks,
    is_one_host,
)

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "2"}
MPICH = {"PMI_RANK": "2", "PMI_SIZE": "4", "MPI_LOCALNRANKS": "4", "MPI_LOCALRANKID": "2"}
SLURM_PMI = {"PMI_RANK": "2", "PMI_SIZE": "4"}
SLURM_PMIX = {"PMIX_RANK": "2", "SLURM_STEP_NUM_TASKS": "4"}
UNSIZED_PMIX = {"PMIX_RANK": "2"}
JSRUN = {"JSM_NAMESPACE_RANK": "2", "JSM_NAMESPACE_SIZE": "4"}
SRUN = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2", "TORCHELASTIC_RUN_ID": "none"}
NAMED = {launcher.name: launcher for launcher in LAUNCHERS}


def launch(name, rank, size):
    return Launch(NAMED[name], rank, size)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (OPEN_MPI, ("Open MPI", 2, 4)),
        (MPICH, ("MPICH", 2, 4)),
        (SLURM_PMI, ("PMI", 2, 4)),
        (SLURM_PMIX, ("PMIx", 2, 4)),
        (UNSIZED_PMIX, ("PMIx", 2, None)),
        (UNSIZED_PMIX | JSRUN, ("PMIx", 2, 4)),
        (JSRUN, ("jsrun", 2, 4)),
        ({"PALS_RANKID": "2"}, ("PALS", 2, None)),
        (SRUN, ("srun", 2, 4)),
        (SRUN | {"SLURM_PROCID": "0"}, ("srun", 0, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, ("srun", 2, None)),
        (SRUN | SLURM_PMI, ("PMI", 2, 4)),
        (TORCHRUN, ("torchrun", 2, 4)),
        (TORCHRUN | MPICH, ("MPICH", 2, 4)),
    ],
)
def test_launchers_are_known_by_their_variables(environ, expected):
    assert Launch.find({"PATH": "/usr/bin"} | environ) == launch(*expected)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        BATCH_SCRIPT,
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "0"},
        {"RANK": "2"},
        {"RANK": "first", "WORLD_SIZE": "many"},
        {"WORLD_SIZE": "4"},
    ],
)
def test_a_process_on_its_own_has_no_launcher(environ):
    assert Launch.find(environ) is None


def test_without_a_launcher_the_communicator_is_serial():
    assert isinstance(connect({}), SerialCommunicator)


def test_mpi4py_is_not_imported_without_a_launcher():
    code = (
        "import sys, distnet.parallel as p; p.connect({}); "
        "sys.exit(any(name.split('.')[0] == 'mpi4py' for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("torn", [launch("MPICH", 2, 4), launch("PMIx", 2, None)])
def test_a_torn_job_is_found_out(torn):
    with pytest.raises(LaunchError, match=r"MPI 9.9, where this is rank 0 of 1; start it with .+"):
        _check_world(torn, rank=0, size=1, library="Open MPI 9.9")


def test_a_whole_job_is_accepted():
    _check_world(launch("MPICH", 2, 4), rank=2, size=4, library="MPICH 5.0")
    _check_world(launch("PMIx", 2, None), rank=2, size=4, library="MPICH 5.0")


@pytest.mark.parametrize(
    ("launcher", "vendor"),
    [("Open MPI", "MPICH"), ("MPICH", "Open MPI"), ("Open MPI", "Intel MPI")],
)
def test_strangers_are_found_out_before_init(launcher, vendor):
    with pytest.raises(LaunchError, match=f"launcher of {launcher}, but mpi4py uses {vendor} 5.0"):
        _check_family(launch(launcher, 0, 4), vendor, f"{vendor} 5.0")


@pytest.mark.parametrize(
    ("launcher", "vendor"), [("Open MPI", "Open MPI"), ("MPICH", "Intel MPI"), ("PMI", "Open MPI")]
)
def test_other_pairs_may_initialise(launcher, vendor):
    _check_family(launch(launcher, 0, 4), vendor, f"{vendor} 5.0")


@pytest.mark.parametrize("size", [4, None])
def test_one_process_speaks_for_all(size):
    # Without a size, rank 0 of a torn job does not notice that it is torn.
    errors = [launch("PMIx", rank, size).error("found", "remedy") for rank in range(4)]
    assert [error.speaks for error in errors] == [rank == (size is None) for rank in range(4)]


@pytest.mark.parametrize("missing", ["mpi4py", "mpi4py.MPI"])
def test_missing_mpi_is_a_launch_error(monkeypatch, missing):
    load = importlib.import_module

    def fail(name):
        if name == missing:
            raise ImportError(f"cannot load {missing}\nfirst tried\nthen tried")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(os, "putenv", lambda name, value: None)  # which would stay
    with pytest.raises(LaunchError, match=rf"\(cannot load {missing}\); install it with: pip"):
        connect(MPICH)


@pytest.mark.mpi_launch
@pytest.mark.parametrize(
    "environ",
    [OPEN_MPI, MPICH, SLURM_PMI, SRUN, TORCHRUN],
    ids=["Open MPI", "MPICH", "PMI", "srun", "torchrun"],
)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_foreign_launcher_ends_in_one_line(tmp_path, environ, rank):
    """Each process of a torn job, as it sees itself: one speaks, all end with exit code 2."""
    ranks = {name: str(rank) for name in environ if name.endswith(("RANK", "PROCID"))}
    shared_memory = {"OMPI_MCA_btl_sm_backing_directory": str(tmp_path)}  # it leaves some behind
    code = "import os, sys, distnet.parallel as p; sys.exit(p.run_command(print, os.environ))"
    process = launching.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ, **ranks, **shared_memory},
    )
    lines = [line for line in process.stderr.splitlines() if line.startswith("distnet: error:")]
    assert (process.returncode, process.stdout, len(lines)) == (2, "", rank == 0)


def test_who_was_not_meant_as_a_rank_is_told_how_to_be_alone():
    message = str(launch("srun", 0, 4).error("found", "do this"))
    assert message.endswith(
        "found; do this; if each process is to work on its own, unset SLURM_PROCID"
    )


@pytest.mark.parametrize(
    ("environ", "warned"),
    [({}, False), (MPICH, False), (MPICH | {"PMI_RANK": "0"}, True), (BATCH_SCRIPT, False)],
)
def test_a_program_that_does_not_connect_can_ask_whether_it_should(environ, warned):
    """Rank 0 speaks for all."""
    assert ("every process trains on its own" in working_alone(environ)) == warned
    assert ("by distnet.run(main) and comm=comm" in working_alone(environ)) == warned


def test_ranks_on_other_hosts_than_expected(any_comm):
    expect_hosts(any_comm, 1)
    with pytest.raises(PlacementError, match=rf"found {any_comm.size} ranks? on 1 host, .*, exp"):
        expect_hosts(any_comm, 2)


def test_hosts_are_named_with_their_ranks():
    comm = SerialCommunicator()
    comm.size, hosts = 3, ["n1", "n2", "n1"]
    comm.processes = [Process(rank, host, 0) for rank, host in enumerate(hosts)]
    comm.node = Node.of(0, hosts)
    expect_hosts(comm, 2)
    with pytest.raises(PlacementError, match=r"on 2 hosts, n1 \(2\), n2 \(1\), expected 3 hosts;"):
        expect_hosts(comm, 3)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (MPICH, True),
        (MPICH | {"MPI_LOCALNRANKS": "2"}, False),
        (SLURM_PMI, False),
        (OPEN_MPI, False),
    ],
)
def test_a_job_on_one_host_is_known_by_what_mpich_says(environ, expected):
    found = Launch.find(environ)
    assert found is not None and is_one_host(found, environ) is expected


@pytest.mark.parametrize(
    ("device", "expected"),
    [("ch4:ucx ofi", True), ("ch4:ofi,ucx", True), ("ch4:ofi", False), ("ch3:nemesis", False)],
)
def test_a_network_is_named_only_where_there_is_a_choice(device, expected):
    library = f"MPICH Version:      5.0.2\nMPICH Device:       {device}\nMPICH CC: cc ucx ofi\n"
    assert has_two_networks(library) is expected


@pytest.mark.parametrize("chosen", [None, ("reloc", "ucx")])
def test_what_a_user_says_about_the_network_stays(chosen):
    names = ("UCX_MEM_MMAP_HOOK_MODE", "MPIR_CVAR_CH4_NETMOD")
    code = "import ctypes, os; from distnet.parallel import connect; connect(os.environ); "
    code += "get = ctypes.CDLL(None).getenv; get.restype = ctypes.c_char_p; "
    code += f"print(*[(get(name.encode()) or b'-').decode() for name in {names}])"
    is_mpich = "Open MPI" not in launching.version_of_mpirun()
    done = launching.mpirun(1, "-c", code, env=dict(zip(names, chosen or (), strict=False)))
    expected = chosen or (("none", "ofi") if is_mpich else ("-", "-"))
    assert done.stdout.split() == list(expected), done.stderr
