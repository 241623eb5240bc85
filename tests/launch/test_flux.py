"""The Flux job, with a stand-in for Flux: ranks get the signal themselves, the script as well."""

from __future__ import annotations

import signal
import sys

import launching
import pytest
import stand_ins

# Like Flux's broker it starts tasks that are no children of `flux run`, and that outlive it.
FLUX = """#!/bin/bash
case "$1 $2" in
    "getattr jobid") echo f42 ;;
    "--parent batch") shift 2; printf '%s\\n' "$OUT" "$@" >{directory}/called ;;
    "run -n")
        n=$3; shift 3
        setsid {python} -c '
import signal, subprocess, sys
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
job = subprocess.Popen(sys.argv[2:], start_new_session=True)
open(sys.argv[1], "w").write(str(job.pid))
job.wait()
open(sys.argv[1] + ".code", "w").write(str(job.returncode))
' {directory}/tasks {mpirun} -n "$n" "$@" &
        until [ -s {directory}/tasks.code ]; do sleep 0.05; done
        exit "$(cat {directory}/tasks.code)" ;;
    *) exit 99 ;;
esac
"""


@pytest.mark.mpi_launch
def test_the_job_submits_itself_again(tmp_path):
    names = {"directory": tmp_path, "python": sys.executable, "mpirun": launching.find_mpirun()}
    flux = FLUX
    for name, value in names.items():
        flux = flux.replace("{" + name + "}", str(value))
    environment = {"PATH": stand_ins.programs(tmp_path / "bin", flux=flux)}
    environment |= {"RANKS": "2", "OUT": str(tmp_path / "run")}
    options = [*stand_ins.TRAINING, "--steps", "100000", "--timeline", f"{tmp_path}/it's one.json"]
    job = stand_ins.start(["bash", str(stand_ins.LAUNCH / "flux.sh"), *options], **environment)
    stand_ins.wait_for(lambda: stand_ins.has_steps(tmp_path / "run"), job)
    tasks = int((tmp_path / "tasks").read_text())
    launching.run(["kill", f"-{signal.SIGUSR1.value}", str(tasks)])
    job.send_signal(signal.SIGUSR1)
    code, output = stand_ins.finish(job)
    assert code == 75, output
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
    again = (tmp_path / "called").read_text().splitlines()
    assert again == [str(tmp_path / "run"), "launch/flux.sh", *options]


def test_flux_is_asked_for_the_signal():
    lines = (stand_ins.LAUNCH / "flux.sh").read_text().splitlines()
    assert "#flux: --signal=SIGUSR1@60s" in lines
