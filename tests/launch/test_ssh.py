"""Hosts that ssh reaches: real SSH servers, each in a host of its own on this machine."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import launching
import pytest
import stand_ins

PORT = 2222
HOSTS = {"127.0.0.2": "one", "127.0.0.3": "two"}  # address -> host name
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
# An SSH server that root starts wants its directory in /run and a user of its own.
SERVE = """
mount -t tmpfs none /run && mkdir /run/sshd
if ! grep -q ^sshd: /etc/passwd; then
    (cat /etc/passwd; echo sshd:x:32767:32767::/run/sshd:/usr/sbin/nologin) >"$1"
    mount --bind "$1" /etc/passwd
fi
shift
exec "$@"
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The text of an `ssh` that reaches HOSTS, and what starts the server of one by its address."""
    if SSHD is None or shutil.which("ssh-keygen") is None:
        pytest.skip("found no sshd; the package openssh-server has it")
    if not stand_ins.can_be_hosts():
        pytest.skip("processes cannot be given a host name of their own here")
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / f"{name}.key")]
        subprocess.run(key, check=True)
    settings = {
        "HostKey": tmp_path / "host.key",
        "AuthorizedKeysFile": tmp_path / "user.key.pub",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
    }
    (tmp_path / "sshd_config").write_text("".join(f"{k} {v}\n" for k, v in settings.items()))
    client = {
        "User": getpass.getuser(),
        "Port": PORT,
        "IdentityFile": tmp_path / "user.key",
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "LogLevel": "ERROR",
    }
    (tmp_path / "ssh_config").write_text("".join(f"{k} {v}\n" for k, v in client.items()))
    servers = {}

    def serve(address: str) -> None:
        name = HOSTS[address]
        prepare = ["sh", "-c", SERVE, "serve", str(tmp_path / f"passwd-{name}")]
        sshd = [SSHD, "-D", "-e", "-f", str(tmp_path / "sshd_config")]
        sshd += ["-o", f"ListenAddress={address}:{PORT}"]
        log = (tmp_path / f"{name}.log").open("w")
        servers[name] = subprocess.Popen(
            [*stand_ins.AS_HOST, name, *prepare, *sshd], stderr=log, stdout=log
        )
        log.close()
        stand_ins.wait_for(lambda: answers(tmp_path, address), servers[name])
        assert answers(tmp_path, address) == f"{name}\n"

    text = f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n'
    (tmp_path / "ssh").write_text(text)
    yield text, serve
    for server in servers.values():
        server.terminate()
        server.wait()


def answers(directory: Path, address: str) -> str:
    """What the host at the address calls itself, nothing if it does not answer."""
    return launching.run(["sh", f"{directory}/ssh", address, "hostname"]).stdout


@pytest.mark.mpi_launch
def test_it_trains_on_hosts_that_answer_and_goes_on_with_those_that_come(tmp_path, ssh):
    ssh, serve = ssh
    (tmp_path / "hosts").write_text(
        "# the first one writes\n  127.0.0.2 slots=2\n127.0.0.3:2\n\n127.0.0.4  # nobody there\n"
    )
    serve("127.0.0.2")
    environment = {
        "PATH": stand_ins.programs(tmp_path / "bin", ssh=ssh),
        "RANKS_PER_HOST": "2",
        "LOOK_EVERY": "1",
        "OUT": str(tmp_path / "run"),
        # Addresses of loopback are left out by Open MPI unless it is told otherwise.
        "OMPI_MCA_btl_tcp_if_include": "lo",
    }
    command = [str(stand_ins.LAUNCH / "ssh.sh"), str(tmp_path / "hosts"), *stand_ins.TRAINING]
    command += ["--schedule", "constant"]
    job = stand_ins.start([*command, "--steps", "1000000"], **environment)
    stand_ins.wait_for(lambda: stand_ins.has_steps(tmp_path / "run"), job)
    serve("127.0.0.3")
    output = ""
    for line in job.stdout:
        output += line
        if "on 2 hosts" in line:
            break
    assert "ranks 2 on 1 host, " in output
    assert "ranks 4 on 2 hosts: one x 2, two x 2" in output
    job.send_signal(signal.SIGTERM)
    code, errors = stand_ins.finish(job)
    assert code == 75, errors
    assert "1 of 3 hosts answer: 127.0.0.2\n" in errors
    assert "2 of 3 hosts answer: 127.0.0.2, 127.0.0.3\n" in errors

    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["event"] == "train"]
    assert steps == list(range(1, steps[-1] + 1))
    hashes = []
    for name, more in (("run", ["--resume"]), ("alone", [])):
        alone = ["-m", "distnet.train", *command[2:], "--steps", str(steps[-1] + 5), *more]
        done = launching.mpirun(1, *alone, "--out", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        hashes.append(summary["params_sha256"])
    assert hashes[0] == hashes[1]
