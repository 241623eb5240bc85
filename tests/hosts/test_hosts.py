"""Training on hosts with a network between them: the same bits, whatever becomes of the links."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import launching
import networks
import pytest
import training_runs
from training_runs import ALONE, read_summary

SMALL = ["--model", "two_layer", *training_runs.SIZES, "--log-every", "1", "--no-progress"]
PROBE = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=2)
except ConnectionRefusedError:
    pass  # somebody is there who says no
"""


@pytest.fixture(scope="module", autouse=True)
def _needs():
    """Hosts, and a launcher that is told them in this way."""
    if "Open MPI" in launching.version_of_mpirun():
        pytest.skip("the command lines here are those of MPICH")
    try:
        with networks.hosts(2, "1gbit"):
            pass
    except networks.Missing as missing:
        pytest.skip(f"no hosts with a network: {missing}")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return training_runs.write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def flags(digits, tmp_path):
    """`flags(name, steps, ...)`: of a run whose results are in that directory."""

    def of(name, steps, *more):
        out = ["--out", str(tmp_path / name), "--data-dir", str(digits), "--steps", str(steps)]
        return ["-m", "distnet.train", *SMALL, *out, *more]

    return of


@pytest.fixture
def expected(flags, tmp_path):
    """`expected(steps, ...)`: the hash of the parameters that one process arrives at."""

    def of(steps, *more):
        process = training_runs.train(ALONE, *flags("alone", steps, *more)[2:])
        assert process.returncode == 0, process.stderr
        return read_summary(tmp_path / "alone")["params_sha256"]

    return of


def mpirun(network, hosts, ranks_per_host):
    """The words that start Python on ranks of these hosts, in blocks."""
    launcher = ["-launcher", "ssh", "-launcher-exec", str(network.launcher)]
    ranks = ["-ppn", str(ranks_per_host), "-n", str(ranks_per_host * len(hosts))]
    return [str(launching.find_mpirun()), *launcher, "-hosts", ",".join(hosts), *ranks]


def start(network, *command):
    """On the first host, in the background."""
    return subprocess.Popen(
        network.on("h1", *command),
        env={**os.environ, **launching.SETTINGS},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(network, num_hosts, ranks_per_host, *words):
    hosts = [f"h{i + 1}" for i in range(num_hosts)]
    process = start(network, *mpirun(network, hosts, ranks_per_host), sys.executable, *words)
    output, errors = process.communicate(timeout=launching.HUNG_SECONDS)
    assert process.returncode == 0, errors
    return output


def wait_for_step(out: Path, step: int, process) -> None:
    path = out / "metrics.jsonl"
    while not path.exists() or path.read_text().count('"train"') < step:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.mpi_launch
def test_the_same_bits_on_1_2_and_4_hosts(flags, expected, tmp_path):
    """Four ranks: in shared memory, in two levels, in messages."""
    bits = expected(6)
    with networks.hosts(4) as network:
        for num_hosts in (1, 2, 4):
            out = f"hosts-{num_hosts}"
            told = train(network, num_hosts, 4 // num_hosts, *flags(out, 6))
            assert f"ranks 4 on {num_hosts} host" in told
            assert read_summary(tmp_path / out)["params_sha256"] == bits


@pytest.mark.mpi_launch
def test_over_a_slow_link_hosts_send_no_more_for_several_ranks(flags, expected, tmp_path):
    """Two ranks a host send less than one would: leading bytes are left out, or it is int32."""
    sent = {}
    with networks.hosts(2, "20mbit") as network:
        for name, ranks, kind in (("one", 1, "exact"), ("two", 2, "exact"), ("half", 2, "exact32")):
            before = network.bytes_sent("h1")
            train(network, 2, ranks, *flags(name, 12, "--reduction", kind))
            sent[name] = network.bytes_sent("h1") - before
    assert max(sent["two"], sent["half"]) < 0.8 * sent["one"]
    bits = {name: read_summary(tmp_path / name)["params_sha256"] for name in sent}
    assert bits["one"] == bits["two"] == expected(12)
    shutil.rmtree(tmp_path / "alone")
    assert bits["half"] == expected(12, "--reduction", "exact32")


@pytest.mark.mpi_launch
def test_a_cable_that_is_cut_for_a_while_holds_up_and_no_more(flags, expected, tmp_path):
    with networks.hosts(2, "20mbit") as network:
        words = [*mpirun(network, ["h1", "h2"], 1), sys.executable, *flags("cut", 30)]
        process = start(network, *words)
        wait_for_step(tmp_path / "cut", 3, process)
        network.cut("h2")
        time.sleep(1)
        network.heal("h2")
        _, errors = process.communicate(timeout=launching.HUNG_SECONDS)
        assert process.returncode == 0, errors
    assert read_summary(tmp_path / "cut")["params_sha256"] == expected(30)


@pytest.mark.mpi_launch
@pytest.mark.parametrize("what", ["kill", "cut"])
def test_a_host_that_is_lost_is_done_without(flags, expected, tmp_path, what):
    """Killed, or cut off for good, and its ranks with it: the other one goes on, restarted."""
    out = tmp_path / what
    with networks.hosts(2, "20mbit") as network:
        job = [*mpirun(network, ["h1", "h2"], 2), sys.executable]
        job[job.index("h1,h2")] = "{hosts}"
        job[job.index("-n") + 1] = "{ranks}"
        options = ["--hosts", "h1,h2", "--ranks-per-host", "2", "--backoff", "0.1"]
        options += ["--silence", "15", "--max-restarts", "5", "--look-every", "0"]
        options += ["--probe", f"{sys.executable} {tmp_path}/probe.py {{host}}"]
        (tmp_path / "probe.py").write_text(PROBE)
        supervise = [sys.executable, "-m", "distnet", "supervise", *options, "--", *job]
        process = start(network, *supervise, *flags(what, 40, "--checkpoint-every", "1"))
        wait_for_step(out, 3, process)
        getattr(network, what)("h2")
        output, errors = process.communicate(timeout=launching.HUNG_SECONDS)
        assert process.returncode == 0, output + errors
    summary = read_summary(out)
    assert (summary["params_sha256"], summary["ranks"]) == (expected(40), 2)
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["event"] == "train"] == list(range(1, 41))
