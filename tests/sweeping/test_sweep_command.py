"""`distnet sweep` on a small data set: the same results on any number of ranks, and going on."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import time
from pathlib import Path

import launching
import pytest
from training_runs import read_summary, write_digits

from distnet.sweep import main

SPEC = """
data_dir = "{data}"
model = "two_layer"
batch_size = 50
micro_batch_size = 16
steps = {steps}
log_every = 1

[grid]
lr = [0.001, 0.01]
augment_cutout = [0, {cutout}, 4]
"""
FAILED = 100  # pixels: more than the pictures have


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def spec(tmp_path, data):
    path = tmp_path / "small.toml"
    path.write_text(SPEC.format(data=data, steps=8, cutout=FAILED))
    return path


@pytest.fixture
def alone(capsys):
    """`alone(*args)`: the command without ranks, in this process: its exit code and its lines."""

    def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
        try:
            code = main([*map(str, args)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return subprocess.CompletedProcess(args, code, *capsys.readouterr())

    return run


def results(out: Path) -> list[bytes]:
    """All that a sweep says at its end."""
    return [(out / name).read_bytes() for name in ("trials.csv", "sweep.html")]


def rows(out: Path) -> dict[str, dict[str, str]]:
    """The table of the trials, by name."""
    with (out / "trials.csv").open() as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


@pytest.mark.mpi_launch
def test_any_number_of_ranks_comes_to_the_same_results(tmp_path, spec, alone):
    done = alone(spec, "--out", tmp_path / "alone")
    assert (done.returncode, done.stderr) == (0, "")
    for num_ranks, per_trial in ((3, 1), (3, 2)):
        out = tmp_path / f"{num_ranks}-{per_trial}"
        args = ["-m", "distnet", "sweep", str(spec), "--out", str(out)]
        ranks = launching.mpirun(num_ranks, *args, "--ranks-per-trial", str(per_trial))
        assert ranks.returncode == 0, ranks.stderr
        assert results(out) == results(tmp_path / "alone")
        # What is said at the end; before it each trial is named when it has ended.
        lines, others = (text.stdout.replace(str(out), "OUT") for text in (done, ranks))
        assert sorted(lines.replace(str(tmp_path / "alone"), "OUT").splitlines()) == sorted(
            others.splitlines()
        )


def test_a_failed_trial_is_named_and_ends_nothing(tmp_path, spec, alone):
    out = tmp_path / "out"
    done = alone(spec, "--out", out)
    assert done.returncode == 0
    assert "6 trials: 4 finished, 2 failed" in done.stdout
    problem = "--augment-cutout: found 100, expected at most 28 pixels"
    assert f"\nfailed: lr=0.01,augment_cutout=100: {problem}\n" in done.stdout
    table = rows(out)
    assert list(table) == [
        f"lr={lr},augment_cutout={size}" for lr in ("0.001", "0.01") for size in (0, 100, 4)
    ]
    for name, row in table.items():
        if row["augment_cutout"] == "100":
            assert (row["state"], row["problem"], row["params_sha256"]) == ("failed", problem, "")
        else:
            summary = read_summary(out / name)
            assert row["state"] == "finished"
            assert row["params_sha256"] == summary["params_sha256"]
            assert float(row["test_accuracy"]) == summary["test_accuracy"]
    assert len({row["params_sha256"] for row in table.values()}) == 5
    page = (out / "sweep.html").read_text()
    assert page.count("<figure>") == 3, "two options, and the best curves"
    assert problem in page and "compared by the accuracy on the test data" in page
    best = max(float(row["test_accuracy"] or 0) for row in table.values())
    assert f"{best:.2%}" in done.stdout.split("6 trials: 4")[1].splitlines()[2]


def test_a_sweep_that_is_started_again_trains_what_is_left(tmp_path, spec, data, alone):
    out = tmp_path / "out"
    alone(spec, "--out", out)
    whole = results(out)
    kept = out / "lr=0.001,augment_cutout=0" / "summary.json"
    untouched = kept.stat().st_mtime_ns
    shutil.rmtree(out / "lr=0.01,augment_cutout=4")  # never begun
    (out / "lr=0.01,augment_cutout=0" / "summary.json").unlink()  # not finished, with a checkpoint
    (out / "lr=0.001,augment_cutout=4" / "summary.json").unlink()  # begun, without one
    shutil.rmtree(out / "lr=0.001,augment_cutout=4" / "checkpoints")
    again = alone(spec, "--out", out)
    assert again.returncode == 0
    assert "6 trials, 3 to be trained" in again.stdout
    assert results(out) == whole
    assert kept.stat().st_mtime_ns == untouched

    for damaged in ("", "[]", "{}"):
        kept.write_text(damaged)
        assert "6 trials, 1 to be trained" in alone(spec, "--out", out).stdout
        assert results(out) == whole

    assert "6 trials, 0 to be trained" in alone(spec, "--out", out).stdout
    assert "6 trials, 2 to be trained" in alone(spec, "--out", out, "--retry").stdout
    assert results(out) == whole

    spec.write_text(SPEC.format(data=data, steps=8, cutout="8, 100"))  # more trials
    assert "8 trials, 2 to be trained" in alone(spec, "--out", out).stdout

    spec.write_text(SPEC.format(data=data, steps=9, cutout="100"))
    other = alone(spec, "--out", out)
    assert (other.returncode, other.stdout) == (2, "")
    assert "found a run with steps 8, expected 9; give the sweep another --out" in other.stderr


@pytest.mark.mpi_launch
def test_a_wish_to_stop_ends_it_and_it_goes_on(tmp_path, spec, data):
    """Each rank is in a trial that would take hours, and stops; the others are not begun."""
    spec.write_text(SPEC.format(data=data, steps=10_000_000, cutout=8))
    out = tmp_path / "out"
    with launching.running(2, "-m", "distnet", "sweep", str(spec), "--out", str(out)) as job:
        give_up = time.monotonic() + launching.HUNG_SECONDS
        while sum(path.stat().st_size > 0 for path in out.glob("*/metrics.jsonl")) < 2:
            assert time.monotonic() < give_up and job.poll() is None, job.communicate()
            time.sleep(0.02)
        job.send_signal(signal.SIGUSR1)
        output, errors = job.communicate(timeout=launching.HUNG_SECONDS)
    assert job.returncode == 75, errors
    assert "6 trials: 6 not finished" in output
    begun = {path.parents[1].name for path in out.glob("*/checkpoints/step-*")}
    assert begun == {"lr=0.001,augment_cutout=0", "lr=0.001,augment_cutout=8"}
    assert {row["state"] for row in rows(out).values()} == {"not finished"}


def test_all_failed_is_a_failure(tmp_path, data, alone):
    spec = tmp_path / "small.toml"
    spec.write_text(SPEC.format(data=data, steps=3, cutout=99).replace("[0, 99, 4]", "[99, 100]"))
    done = alone(spec, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "4 trials: 4 failed" in done.stdout


def test_trials_are_compared_by_validation_data_where_there_are_some(tmp_path, data, alone):
    spec = tmp_path / "small.toml"
    text = SPEC.format(data=data, steps=3, cutout=0).replace("[0, 0, 4]", "0")
    spec.write_text("validation = 0.2\n" + text)
    done = alone(spec, "--out", tmp_path / "out")
    assert "valid accuracy" in done.stdout
    assert "compared by the accuracy on the validation data" in done.stdout


def test_a_file_that_is_not_there_is_one_line(tmp_path, alone):
    done = alone(tmp_path / "none.toml")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path, spec, alone):
    (tmp_path / "file").touch()
    done = alone(spec, "--out", tmp_path / "file")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "where nothing can be written" in line
