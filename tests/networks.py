"""Hosts with a network between them, on this machine: for tests of what goes over real links.

A host is a process with network, host name, /dev/shm and shared memory of its own; every host hangs
on a bridge, in a namespace as well, by a cable whose rate can be limited and which can be cut. It
takes root, Linux, and `ip` and `tc` of iproute2. `python -m tests.networks` says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does
import launching

NAMESPACES = ["unshare", "--net", "--uts", "--ipc", "--mount"]
BECOME_HOST = """
hostname "$1" && mount -t tmpfs none /dev/shm && mount --bind "$2" /etc/hosts &&
ip link set lo up && echo up && exec sleep infinity
"""
# For mpirun: `LAUNCHER [options of ssh] HOST COMMAND...`, and COMMAND may be one word.
LAUNCHER = """#!/bin/bash
while [[ $1 == -* ]]; do case $1 in -o | -l | -p | -i) shift 2 ;; *) shift ;; esac; done
host=$1 && shift
exec nsenter -t "$(cat {directory}/"$host")" -n -u -i -m -- sh -c "cd $PWD && $*"
"""
RATE = "tbf rate {rate} burst 32kb latency 100ms"


class Missing(Exception):  # noqa: N818  the condition is the name
    """This machine cannot have such hosts; the message says why."""


class Network:
    """Hosts h1, h2, ... with addresses 10.91.0.1, ...; made by `hosts`.

    launcher: a program that starts commands on them as ssh does.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._holders = directory, dict[str, subprocess.Popen[str]]()
        self.launcher = directory / "launcher"
        self.launcher.write_text(LAUNCHER.format(directory=directory))
        self.launcher.chmod(0o755)

    def add(self, name: str) -> None:
        """A host without a cable."""
        table = self._directory / "hosts"
        command = [*NAMESPACES, "bash", "-c", BECOME_HOST, "host", name, str(table)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        holder = subprocess.Popen(command, stdin=subprocess.DEVNULL, **pipes)
        self._holders[name] = holder
        if holder.stdout.readline() != "up\n":
            raise Missing(f"hosts cannot be made here: {holder.stderr.read().strip()}")
        (self._directory / name).write_text(str(holder.pid))

    def on(self, host: str, *command: str) -> list[str]:
        """The words that run a command on a host."""
        enter = ["nsenter", "-t", str(self._holders[host].pid), "-n", "-u", "-i", "-m", "--"]
        return [*enter, "sh", "-c", 'cd "$0" && exec "$@"', str(launching.ROOT), *command]

    def do(self, host: str, line: str) -> str:
        """Runs a command, here called by its words, to its end."""
        done = launching.run(self.on(host, *shlex.split(line)))
        if done.returncode:
            raise Missing(f"{line}: {done.stderr.strip()}")
        return done.stdout

    def connect(self, number: int, rate: str) -> None:
        """The cable of a host, at most `rate` in either direction ("" for any)."""
        host, port = f"h{number}", f"port{number}"
        pid = self._holders[host].pid
        self.do("switch", f"ip link add {port} type veth peer name eth0 netns {pid}")
        self.do("switch", f"ip link set {port} master bridge up")
        self.do(host, f"ip addr add 10.91.0.{number}/24 dev eth0")
        self.do(host, "ip link set eth0 up")
        if rate:
            self.do(host, f"tc qdisc add dev eth0 root {RATE.format(rate=rate)}")
            self.do("switch", f"tc qdisc add dev {port} root {RATE.format(rate=rate)}")

    def cut(self, host: str) -> None:
        """Its cable: packets vanish, and neither end is told."""
        self.do("switch", f"ip link set port{host[1:]} nomaster")

    def heal(self, host: str) -> None:
        """Its cable is whole again."""
        self.do("switch", f"ip link set port{host[1:]} master bridge")

    def kill(self, host: str) -> None:
        """All its processes at once, and its network; nothing can be started there any more."""
        (self._directory / host).write_text("0")
        of_host = os.stat(f"/proc/{self._holders[host].pid}/ns/net").st_ino
        for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}/ns/net").st_ino == of_host:
                    os.kill(pid, signal.SIGKILL)
        self._holders[host].communicate()

    def bytes_sent(self, host: str) -> int:
        """Since it was made, into its cable."""
        lines = self.do(host, "cat /proc/net/dev").splitlines()
        (counts,) = (line.split(":")[1].split() for line in lines if "eth0:" in line)
        return int(counts[8])

    def remove(self) -> None:
        """All hosts with all that runs there."""
        for host in list(self._holders):
            if self._holders[host].poll() is None:
                self.kill(host)


@contextmanager
def hosts(count: int, rate: str = "") -> Iterator[Network]:
    """A network of so many hosts, which is gone afterwards; raises Missing."""
    for program in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(program) is None:
            raise Missing(f"found no {program}; the packages util-linux and iproute2 have it")
    if os.geteuid() != 0:
        raise Missing("only root can make hosts with a network")
    with tempfile.TemporaryDirectory() as directory:
        names = "".join(f"10.91.0.{i} h{i}\n" for i in range(1, count + 1))
        Path(directory, "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        network = Network(Path(directory))
        try:
            network.add("switch")
            network.do("switch", "ip link add bridge type bridge")
            network.do("switch", "ip link set bridge up")
            for number in range(1, count + 1):
                network.add(f"h{number}")
                network.connect(number, rate)
            yield network
        finally:
            network.remove()


if __name__ == "__main__":
    try:
        with hosts(2, "1gbit") as network:
            print(network.do("h2", "hostname").strip(), "of 2 hosts is there")
    except Missing as missing:
        sys.exit(str(missing))
