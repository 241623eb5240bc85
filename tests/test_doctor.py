"""`distnet doctor` says whether training will work, and what helps: whole commands."""

from __future__ import annotations

import json
import os
import stat
import time

import launching
import pytest
from training_runs import run_python

from distnet import doctor
from distnet.checkup.finding import Level
from distnet.checkup.starting import KNOWN, explained, start_ranks, starting
from distnet.data import DataError
from distnet.parallel import SerialCommunicator

COMMAND = ("-m", "distnet", "doctor", "--json")


@pytest.mark.mpi_launch
def test_alone_it_starts_two_ranks_and_trains():
    process = run_python(*COMMAND)
    report = json.loads(process.stdout)
    bad = [each for each in report["findings"] if each["level"] == "error"]
    # Open MPI refuses root unless it is told otherwise, and that is what has to be said.
    assert [each["check"] for each in bad] in ([], ["mpirun"])
    assert (process.returncode, report["will_train"]) == ((1, False) if bad else (0, True))
    checks = [each["check"] for each in report["findings"]]
    assert checks[:4] == ["python", "kernels", "arithmetic", "memory"]
    assert checks[-3:] == ["mpi", "mpirun", "training"]
    if not bad:
        assert report["findings"][-2]["text"] == "starts 2 ranks, which find each other"


@pytest.mark.mpi_launch
def test_alone_it_is_not_on_several_hosts():
    process = run_python(*COMMAND, "--expect-hosts", "2")
    report = json.loads(process.stdout)
    (hosts,) = [each for each in report["findings"] if each["check"] == "hosts"]
    assert (process.returncode, hosts["level"]) == (1, "error")
    assert "without a launcher, while --expect-hosts says 2 hosts" in hosts["text"]


@pytest.mark.mpi_launch
@pytest.mark.parametrize(("hosts", "code"), [("1", 0), ("2", 1)])
def test_on_ranks_one_of_them_reports(mpirun, hosts, code):
    process = mpirun(2, *COMMAND, "--seconds", "0.2", "--expect-hosts", hosts)
    assert process.returncode == code, process.stderr
    report = json.loads(process.stdout)
    found = {each["check"]: each for each in report["findings"]}
    assert report["will_train"] == (code == 0)
    assert found["hosts"]["level"] == ("error" if code else "ok")
    assert found["all-reduce"]["text"].startswith("of 2 ranks: 8 bytes in ")
    assert found["links"]["text"].startswith("1 within a host, 1 MB in ")
    assert found["sums"]["text"] == "in memory that all ranks of this host share"
    assert found["training"]["text"].startswith("3 steps of DeepConvNet, about ")


def test_a_launcher_of_no_mpi_is_an_error_with_its_cure(monkeypatch, capsys):
    monkeypatch.setattr(os, "environ", {"RANK": "0", "WORLD_SIZE": "2"})
    assert doctor.main([]) == 1
    first, cure, verdict = capsys.readouterr().out.splitlines()
    assert first.startswith("error    launcher  started as rank 0 of 2 by the launcher of torchrun")
    assert cure.strip().startswith("-> start it with ")
    assert verdict == "training will not work as it is, 1 error"


def test_wrong_usage(capsys):
    assert doctor.main(["--second", "1"]) == 2
    assert capsys.readouterr().err.startswith("distnet: error: unknown option '--second'")


def test_data_that_cannot_be_read_is_an_error(monkeypatch):
    def fail(*args, **kwargs):
        raise DataError("mnist.npz: damaged")

    monkeypatch.setattr(doctor, "load_dataset", fail)
    found = doctor.trains(SerialCommunicator(), {})
    assert (found.level, found.text) == (Level.ERROR, "mnist.npz: damaged")


def test_a_check_that_hangs_ends_the_job(monkeypatch, capsys):
    codes = []

    class Two(SerialCommunicator):
        size = 2

        def abort(self, code):
            codes.append(code)

    monkeypatch.setattr(doctor, "LIMIT_SECONDS", 0.01)
    with doctor.limited(Two()) as begin:
        begin("timing sums")
        give_up = time.monotonic() + launching.HUNG_SECONDS
        while not codes and time.monotonic() < give_up:
            time.sleep(0.01)
    assert codes == [1]
    assert "timing sums has not ended within" in capsys.readouterr().err


ROOT = """
prterun has detected an attempt to run as root.

Running as root is *strongly* discouraged as any mistake (e.g., in
"""
SLOTS = """
There are not enough slots available in the system to satisfy the 2
slots that were requested by the application:
"""
MIXED = (
    "distnet: error: started as rank 0 of 2 by the launcher of Open MPI, but mpi4py uses MPICH "
    "5.0.2; start it with /env/bin/mpirun\nprterun detected that one or more processes exited\n"
)


@pytest.mark.parametrize(
    ("said", "meaning", "cure"),
    [
        (ROOT, "Open MPI refuses to run as root", "export OMPI_ALLOW_RUN_AS_ROOT=1"),
        (SLOTS, "Open MPI has fewer slots (cores) than ranks", "export PRTE_MCA_rmaps"),
        (MIXED, "started as rank 0 of 2 by the launcher of Open MPI, but", "start it with /env/b"),
        ("x\ngethostbyname failed, vm (errno 0)\n", "the launcher cannot find this host", "add a"),
        ("BAD TERMINATION ... Bus error (signal 7)", "MPI finds no room in /dev/shm", "containers"),
        ("ModuleNotFoundError: No module named 'distnet'", "ranks do not find distnet", "install"),
        ("what\nnobody knows\n---\n", "ends with exit code 3: nobody knows", "see what mpirun"),
        ("", "ends with exit code 3", "see what mpirun"),
    ],
)
def test_what_launchers_say_is_explained(said, meaning, cure):
    found = explained(said, 3)
    assert found.level == Level.ERROR
    assert found.text.startswith(meaning)
    assert found.cure.startswith(cure)


def test_every_explanation_has_a_cure():
    assert all(cure for _, _, cure in KNOWN)


def fake_mpirun(directory, script):
    path = directory / "mpirun"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_launcher_that_starts_each_process_alone(tmp_path):
    """As one of another MPI does: every process is rank 0 of 1."""
    found = start_ranks(fake_mpirun(tmp_path, "echo ranks 1; echo ranks 1"), {})
    assert found.level == Level.ERROR


def test_a_launcher_that_never_starts_anything(tmp_path, monkeypatch):
    monkeypatch.setattr("distnet.checkup.starting.LIMIT_SECONDS", 0.2)
    found = start_ranks(fake_mpirun(tmp_path, "exec sleep 20"), {})
    assert "have not started within" in found.text
    assert found.level == Level.ERROR


def test_a_launcher_of_another_mpi_is_found_before_it_is_tried(tmp_path, monkeypatch):
    fake_mpirun(tmp_path, "echo 'mpirun (Open MPI) 5.0.11'")
    monkeypatch.setattr("distnet.checkup.starting.mpi_library", lambda: ("MPICH 5.0.2", ""))
    (found,) = starting({"PATH": f"{tmp_path}:/bin"})
    assert found.text.startswith("mpi4py and mpirun are of two MPIs: MPICH 5.0.2, ")
    assert found.level == Level.ERROR


@pytest.mark.parametrize(
    ("library", "level", "text"),
    [
        (("", "No module named 'mpi4py'"), Level.WARNING, "none (No module named 'mpi4py'): one"),
        (("MPICH 5.0.2", ""), Level.WARNING, "MPICH 5.0.2, but found no mpirun"),
    ],
)
def test_without_mpi_one_process_can_train(monkeypatch, library, level, text):
    monkeypatch.setattr("distnet.checkup.starting.mpi_library", lambda: library)
    monkeypatch.setattr("distnet.checkup.starting.find_mpirun", lambda environ: None)
    (found,) = starting({})
    assert found.level == level
    assert found.text.startswith(text)
