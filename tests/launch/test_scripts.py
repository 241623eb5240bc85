"""The shell scripts in launch/: what a linter and a user who calls them wrongly see."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import launching
import pytest
import stand_ins

SCRIPTS = sorted([*stand_ins.LAUNCH.glob("*.sh"), *stand_ins.LAUNCH.glob("*.sbatch")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path):
    beside_python = Path(sys.executable).with_name("shellcheck")
    program = beside_python if beside_python.exists() else shutil.which("shellcheck")
    if program is None:
        pytest.skip("found no shellcheck; the extra dev installs it")
    done = launching.run([str(program), str(path)])
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_it_can_be_started(path):
    assert path.suffix == ".sbatch" or path.stat().st_mode & 0o111
    assert path.read_text().startswith("#!/bin/")


def test_the_maker_of_an_emulated_python_leaves_what_is_there(tmp_path):
    done = launching.run([str(stand_ins.LAUNCH / "emulated-arm.sh"), str(tmp_path)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "usage: launch/emulated-arm.sh DIR, which is not there yet; found"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["python", "mpirun"])
def test_ssh_wants_python_and_mpirun(tmp_path, missing):
    (tmp_path / "hosts").write_text("one\n")
    for name in ("grep", "python"):
        if name != missing:
            (tmp_path / name).symlink_to(shutil.which(name) or sys.executable)
    script = [str(stand_ins.LAUNCH / "ssh.sh"), str(tmp_path / "hosts")]
    done = launching.run(script, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"launch/ssh.sh: error: found no {missing} on PATH")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "usage: launch/ssh.sh HOSTFILE [options of distnet.train]; found no file"),
        ("\n# none\n", "launch/ssh.sh: error: found no host in"),
    ],
)
def test_ssh_wants_a_file_of_hosts(tmp_path, text, message):
    hostfile = tmp_path / "hosts"
    if text is not None:
        hostfile.write_text(text)
    done = launching.run([str(stand_ins.LAUNCH / "ssh.sh"), str(hostfile)])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
