"""Commands where what macOS lacks is taken away: on Linux, as nobody has run them on a Mac.

`AS_MACOS` is a `sitecustomize.py`, so all processes of a command begin with it. Python then says
that the system is Darwin, has none of the functions and constants that typeshed has for Linux alone
(those that a program like this one would call), sees neither /proc nor /dev/shm, and NumPy says
that it was built with Apple's BLAS, of which threadpoolctl sees nothing. What only a Mac can show
is not in it: its MPI, its BLAS, its file system.
"""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
import unicodedata
from collections.abc import Callable
from pathlib import Path

import launching
import pytest

from distnet.base import files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays macOS on Linux")

AS_MACOS = r"""
import builtins, errno, fcntl, io, mmap, os, platform, resource, select, signal, socket, sys, time
import types

LACKS = {
    os: "copy_file_range eventfd fdatasync getrandom getxattr listxattr memfd_create pidfd_open "
    "pipe2 posix_fadvise posix_fallocate sched_getaffinity sched_setaffinity sched_setscheduler "
    "setns splice unshare waitid O_DIRECT O_PATH O_TMPFILE RTLD_DEEPBIND",
    signal: "SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait "
    "sigwaitinfo",
    fcntl: "F_ADD_SEALS F_GETPIPE_SZ F_SETPIPE_SZ F_NOTIFY",
    mmap: "MADV_DONTFORK MADV_HUGEPAGE MAP_POPULATE MAP_STACK",
    resource: "RUSAGE_THREAD prlimit",
    select: "epoll EPOLLIN",
    socket: "AF_NETLINK AF_PACKET AF_VSOCK SOCK_CLOEXEC SOCK_NONBLOCK SO_PEERCRED TCP_QUICKACK",
    time: "CLOCK_BOOTTIME pthread_getcpuclockid",
}
import mpi4py._mpiabi  # the MPI library has the name and the place that it has on Linux
mpi4py._mpiabi.sys = types.SimpleNamespace(**vars(sys))
for module, names in LACKS.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
fcntl.F_FULLFSYNC = 51  # Linux refuses it, as some file systems of macOS do
sys.platform = "darwin"
sys.modules["_scproxy"] = types.ModuleType("_scproxy")
sys.modules["_scproxy"]._get_proxies = sys.modules["_scproxy"]._get_proxy_settings = dict
DARWIN = ("Darwin", os.uname().nodename, "24.5.0", "Darwin Kernel Version 24.5.0", "arm64")
uname = type(os.uname())(DARWIN)
os.uname = lambda: uname
platform.mac_ver = lambda: ("15.5", ("", "", ""), "arm64")


def hidden(function):
    def call(path, *args, **kwargs):
        name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if name.startswith(("/proc", "/dev/shm", "/sys")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return function(path, *args, **kwargs)
    return call


builtins.open = io.open = hidden(open)
for name in ("open", "stat", "lstat", "listdir", "scandir", "mkdir", "readlink", "unlink"):
    setattr(os, name, hidden(getattr(os, name)))


class Usage:
    def __init__(self, usage):
        self.ru_maxrss = 1024 * usage.ru_maxrss  # bytes


usage = resource.getrusage
resource.getrusage = lambda who: Usage(usage(who))

import numpy.__config__
import threadpoolctl
numpy.__config__.CONFIG["Build Dependencies"]["blas"] = {"name": "accelerate", "version": "unknown"}
threadpoolctl.ThreadpoolController._find_libraries_with_dyld = lambda self: None
"""
TWO_LAYER = ("--model", "two_layer", "--steps", "4", "--arithmetic", "portable")
AsMacos = Callable[..., launching.Finished]


@pytest.fixture(scope="module")
def as_macos(tmp_path_factory) -> AsMacos:
    """Runs a command of that Python, in a temporary folder as long as those of macOS, to its end.

    Not more than 256 files can be open, as in a shell of macOS.
    """
    directory = tmp_path_factory.mktemp("macos")
    (directory / "sitecustomize.py").write_text(AS_MACOS)
    temporary = directory / "var" / "folders" / "30" / "c1t3_6m546n62qrckq5fs_wc0000gp" / "T"
    temporary.mkdir(parents=True)
    environ = {
        **os.environ,
        **launching.SETTINGS,
        "PYTHONPATH": os.pathsep.join([str(directory), launching.SETTINGS["PYTHONPATH"]]),
        "PATH": os.pathsep.join([str(launching.find_mpirun().parent), os.environ["PATH"]]),
        "TMPDIR": str(temporary),
        "_PYTHON_SYSCONFIGDATA_NAME": sysconfig._get_sysconfigdata_name(),
    }

    def run(*args: object, num_ranks: int = 0) -> launching.Finished:
        launcher = [str(launching.find_mpirun()), "-n", str(num_ranks)] if num_ranks else []
        command = [*launcher, sys.executable, "-m", *map(str, args)]
        limited = ["sh", "-c", 'ulimit -n 256; exec "$0" "$@"', *command]
        return launching.run(limited, env=environ, cwd=directory)

    return run


def sha256_of(run: Path) -> str:
    return json.loads((run / "summary.json").read_text())["params_sha256"]


def test_the_doctor_knows_what_is_not_there(as_macos):
    done = as_macos("distnet", "doctor")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for line in (
        r"python +\S+ on Darwin arm64",
        r"kernels +NumPy \S+, accelerate 15\.5 .*: its number of threads is not known",
        r"memory +how much is free is not known",
        r"shared memory +no /dev/shm on this system",
        r"mpirun +starts 2 ranks, which find each other",
    ):
        assert re.search(line, done.stdout), done.stdout


def test_ranks_have_no_memory_to_share_and_nothing_to_do_about_it(as_macos):
    done = as_macos("distnet", "doctor", num_ranks=2)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ok +sums +as messages", done.stdout, re.MULTILINE), done.stdout


def test_training_has_the_bits_that_it_has_here(as_macos, tmp_path):
    """Alone, on ranks, stopped and resumed; then by a supervisor, which evaluates."""
    runs = {name: tmp_path / unicodedata.normalize("NFD", name) for name in ("älone", "ranks")}
    assert as_macos("distnet.train", *TWO_LAYER, "--out", runs["älone"]).returncode == 0
    again = ("distnet.train", *TWO_LAYER, "--out", runs["ranks"])
    assert as_macos(*again, "--stop-at", "2", num_ranks=3).returncode == 75
    supervised = (launching.find_mpirun(), "-n", "2", sys.executable, "-m", *again)
    done = as_macos("distnet", "supervise", "--", *supervised)
    assert done.returncode == 0, done.stderr
    here = tmp_path / "here"
    command = [sys.executable, "-m", "distnet.train", *TWO_LAYER, "--out", str(here)]
    launching.run(command, check=True, env={**os.environ, **launching.SETTINGS})
    assert {sha256_of(run) for run in runs.values()} == {sha256_of(here)}
    assert "accuracy" in as_macos("distnet", "evaluate", runs["ranks"]).stdout


def test_benchmarks_know_the_units(as_macos):
    done = as_macos("distnet.bench", "memory", "--model", "two_layer")
    assert done.returncode == 0, done.stderr
    found = re.search(r"distnet micro-batch \d+ +(\d+) MB", done.stdout)
    assert found and 50 < int(found[1]) < 500, done.stdout


def test_a_disk_is_asked_for_what_is_in_its_memory(monkeypatch, tmp_path):
    """Where a file system does not have that, it is `fsync`ed."""
    calls = []

    def fcntl(descriptor: int, number: int) -> None:
        calls.append(number)
        if len(calls) > 1:
            raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(files.sys, "platform", "darwin")
    monkeypatch.setattr(files.fcntl, "fcntl", fcntl)
    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.os, "fsync", lambda descriptor: calls.append("fsync"))
    files.write_atomically(tmp_path / "x", b"the file, then its directory")
    assert calls == [51, 51, "fsync"]
