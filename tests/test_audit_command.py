"""`--audit`: a rank that computes wrongly leaves a job that can do without it, or ends another."""

from __future__ import annotations

import re

import chaos
import launching
import pytest
import training_runs
from training_runs import ALONE, SIZES, read_metrics, read_summary

PROGRAM = str(launching.ROOT / "tests" / "training" / "faulty_program.py")
FAULT = 3  # the step in which it begins
AT_FAULT = (
    r"step 3: rank {} \(process \d+ on \S+\) computes wrongly: its gradient of micro-batch \d "
)


@pytest.fixture
def flags(tmp_path):
    """`flags(name, ...)`: of a run of six steps whose results are in that directory."""
    digits = training_runs.write_digits(tmp_path)
    data = ["--data-dir", str(digits), "--model", "two_layer", *SIZES]
    length = ["--steps", "6", "--checkpoint-every", "2", "--no-progress", "--audit", "99"]

    def of(name, *more):
        return [*data, *length, "--out", str(tmp_path / name), *more]

    return of


@pytest.fixture
def expected(flags, tmp_path):
    """The hash of the parameters of a run without faults, in a process of its own."""
    process = training_runs.train(ALONE, *flags("alone"))
    assert process.returncode == 0, process.stderr
    assert "no other rank to compute anything again, so nothing is audited" in process.stdout
    return read_summary(tmp_path / "alone")["params_sha256"]


def test_a_job_that_can_goes_on_without_the_rank_and_keeps_its_bits(
    mpirun, flags, expected, tmp_path
):
    if not chaos.is_elastic():
        pytest.skip("needs Open MPI 5")
    for victim in (2, 0):  # rank 0 tells and writes
        out, options = tmp_path / f"without-{victim}", {"options": ("--with-ft", "ulfm")}
        process = mpirun(3, PROGRAM, str(victim), str(FAULT), *flags(out.name), **options)
        assert process.returncode == 0, process.stderr
        assert read_summary(out)["params_sha256"] == expected
        assert re.search(AT_FAULT.format(victim) + ".* it has left", process.stderr)
        lines = [line for line in read_metrics(out) if line["event"] in ("fault", "recovery")]
        assert [(line["event"], line["step"]) for line in lines] == [("fault", 3), ("recovery", 3)]
        assert re.match(AT_FAULT.format(victim), lines[0]["what"])


def test_another_job_ends_and_can_be_resumed(mpirun, flags, expected, tmp_path):
    process = mpirun(3, PROGRAM, "1", str(FAULT), *flags("ended"))
    assert process.returncode == 77
    (line,) = training_runs.own_lines(process)
    assert re.match("distnet: error: " + AT_FAULT.format(1), line)
    assert line.endswith("go on from the last checkpoint with --resume, on other processors")
    assert training_runs.checkpoint(tmp_path / "ended", 2).exists()
    resumed = training_runs.train(2, *flags("ended", "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    summary = read_summary(tmp_path / "ended")
    assert summary["params_sha256"] == expected
    assert summary["audited"] == 3 * 4 + 2  # steps 2 to 5: 50 samples, in the last of an epoch 30


def test_between_two_ranks_it_cannot_be_told(mpirun, flags, tmp_path):
    process = mpirun(2, PROGRAM, "1", str(FAULT), *flags("two"))
    assert process.returncode == 77
    (line,) = training_runs.own_lines(process)
    assert line.startswith(
        "distnet: error: step 3: some rank computes wrongly, and it cannot be told"
    )


@pytest.mark.parametrize(
    "more, found", [(["--reduction", "float32"], "float32"), (["--sync", "local"], "--sync local")]
)
def test_what_cannot_be_audited_is_refused(flags, more, found):
    process = training_runs.train(ALONE, *flags("refused", *more))
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith("distnet: error: --audit: found it") and found in line
