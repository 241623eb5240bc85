"""The Slurm job: mpirun inside the allocation, a signal from Slurm, a checkpoint, and on again."""

from __future__ import annotations

import json
import signal

import launching
import pytest
import stand_ins


@pytest.mark.mpi_launch
def test_the_job_queues_itself_again_and_goes_on(tmp_path):
    """Slurm would send SIGUSR1 to the batch script, which the exec makes the supervisor."""
    scontrol = f'#!/bin/sh\necho "$@" > {tmp_path}/called\n'
    out = tmp_path / "run"
    environment = {
        "PATH": stand_ins.programs(tmp_path / "bin", scontrol=scontrol, srun=stand_ins.SRUN),
        "SLURM_JOB_ID": "42",
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NUM_NODES": "1",
        "OUT": str(out),
    }
    # Open MPI took such nodes for one host at times, with memory that they do not share.
    if stand_ins.can_be_hosts() and "Open MPI" not in launching.version_of_mpirun():
        environment |= {
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_NNODES": "2",
            "SLURM_JOBID": "42",
            "SLURM_NODELIST": "node[1-2]",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_TASKS_PER_NODE": "2(x2)",
        }
    command = ["bash", str(stand_ins.LAUNCH / "slurm.sbatch"), *stand_ins.TRAINING]
    # At a constant rate a run may go on for longer, or less long, than it was to be at first.
    command += ["--schedule", "constant", "--steps"]
    job = stand_ins.start([*command, "1000000"], **environment)
    stand_ins.wait_for(lambda: stand_ins.has_steps(out), job)
    assert not (tmp_path / "called").exists()
    job.send_signal(signal.SIGUSR1)
    code, output = stand_ins.finish(job)
    assert code == 75, output
    assert (tmp_path / "called").read_text() == "requeue 42\n"
    if "SLURM_NODELIST" in environment:
        assert "ranks 4 on 2 hosts: node1 x 2, node2 x 2" in output
    (checkpoint,) = (out / "checkpoints").glob("step-*")
    num_steps = int(checkpoint.stem.partition("-")[2]) + 20
    code, output = stand_ins.finish(stand_ins.start([*command, str(num_steps)], **environment))
    assert code == 0, output
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    steps = [line["step"] for line in lines if line["event"] == "train"]
    assert steps == list(range(1, num_steps + 1))


def test_slurm_is_asked_for_the_signal_and_to_queue_it_again():
    text = (stand_ins.LAUNCH / "slurm.sbatch").read_text()
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --signal=B:USR1@60", "#SBATCH --requeue"} <= set(directives)
    before_the_first_command = text.partition("set -eu")[0]
    assert all(line in before_the_first_command for line in directives)
