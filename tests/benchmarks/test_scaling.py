"""The benchmarks of several ranks: how their figures follow from times, and that they run."""

from __future__ import annotations

import json
import sys

import pytest

from distnet.bench import main
from distnet.benchmarks import jobs
from distnet.benchmarks.allreduce import make_row as make_format_row
from distnet.benchmarks.allreduce import make_steps_row
from distnet.benchmarks.jobs import JobError, run_group, run_ranks
from distnet.benchmarks.scaling import communication, hidden_share, make_row
from distnet.parallel import REDUCTIONS


def result(step, compute, messages=4.0, last=1.0, window=10.0, rate=100.0):
    return {
        "images_per_second": rate,
        "step_seconds": step,
        "compute_seconds": compute,
        "wait_share": 0.1,
        "bytes_per_step": 800,
        "messages_seconds": messages,
        "last_message_seconds": last,
        "window_seconds": window,
        "allreduce_seconds": 2.0,
    }


@pytest.mark.parametrize(
    "figures, hideable, hidden",
    [
        (result(20, 20 + 1.0), 3.0, None),  # faster with messages than without: noise, but shown
        (result(21, 20), 3.0, 1.0),  # the last bucket alone is seen
        (result(24, 20), 3.0, 0.0),  # all of it is seen
        (result(23, 20, window=2.0), 2.0, 0.5),  # backward is over before the messages are
        (result(24, 20, messages=1.0), 0.0, None),  # one bucket: nothing to hide behind
    ],
)
def test_what_could_be_hidden_and_what_is(figures, hideable, hidden):
    found = communication(figures)
    assert found["hideable_seconds"] == hideable
    if hidden is not None:
        assert hidden_share({"ranks": 2, **found}) == pytest.approx(hidden)
    assert hidden_share({"ranks": 1, **found}) is None
    assert (hidden_share({"ranks": 2, **found}) is None) == (hideable == 0)


def test_ratios_are_medians_of_rounds():
    rounds = [
        {
            "ranks 1": result(1, 1, rate=100),
            "ranks 2": result(1, 1, rate=own),
            "copies 2": {"images_per_second": copies},
            "ddp 2 NCHW": {"images_per_second": 50.0},
            "ddp 2 channels_last": {"images_per_second": 80.0},
        }
        for own, copies in [(160, 200), (190, 200), (180, 300)]
    ]
    row = make_row(rounds, 2)
    assert (row["images_per_second"], row["of_one_rank"], row["of_copies"]) == (180, 0.9, 0.8)
    assert (row["ddp_layout"], row["of_ddp"]) == ("channels_last", 180 / 80)


def test_times_of_a_format_are_without_the_barrier():
    rounds = [
        {"bytes": 8, "link_bytes": t, "exact": True, "barrier": 1}
        | dict.fromkeys(("reduction", "without_mpi", "allreduce"), t)
        for t in (3.0, 4.0, 9.0)
    ]
    row = make_format_row(rounds)
    assert (row["reduction"], row["link_bytes"]) == (3.0, 4.0)


def test_steps_of_a_format_are_compared_step_by_step():
    seconds = {"float32": [1.0, 2.0, 4.0], "exact": [1.0, 4.0, 5.0]}
    row = make_steps_row(seconds, "exact", batch_size=8)
    assert row == {"images_per_second": 2.0, "of_float32": 0.8}


@pytest.mark.mpi_launch
def test_scaling_runs(tmp_path, capsys):
    path = tmp_path / "scaling.json"
    flags = "--model two_layer --batch-size 30 --micro-batch-size 10 --steps 4 --turn 2"
    flags += " --warmups 1 --rounds 1 --ranks 1 2 --no-ddp --reduction float32 --json"
    assert main(["scaling", *flags.split(), str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["ranks"] for row in rows] == [1, 2]
    assert all(row["images_per_second"] > 0 and row["of_copies"] > 0 for row in rows)
    assert 4 * 39760 < rows[1]["bytes_per_step"] < 4 * 39760 + 100
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["ranks", "1", "2"]


@pytest.mark.mpi_launch
def test_allreduce_runs(tmp_path):
    path = tmp_path / "allreduce.json"
    flags = "--ranks 2 --sizes 1000 --rounds 1 --repeats 3"
    flags += " --model two_layer --batch-size 20 --steps 4 --turn 2 --warmups 1 --json"
    assert main(["allreduce", *flags.split(), str(path)]) == 0
    result = json.loads(path.read_text())
    (rows,) = result["results"].values()
    assert list(result["steps"]["2"]) == list(REDUCTIONS)
    assert list(rows) == [*REDUCTIONS, "exact, shared", "exact, messages"]
    assert result["steps"]["2"]["float32"]["of_float32"] == 1
    assert rows["exact"]["bytes"] > 1.9 * rows["float32"]["bytes"] > 3.6 * rows["float16"]["bytes"]


@pytest.mark.mpi_launch
def test_audit_runs(tmp_path, capsys):
    path = tmp_path / "audit.json"
    flags = "--ranks 2 --audits 1 9 --rounds 1 --micro-batch-size 5"
    flags += " --model two_layer --batch-size 20 --steps 4 --turn 2 --warmups 1 --json"
    assert main(["audit", *flags.split(), str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-2:]] == [["1", "1.250"], ["4", "2.000"]]
    (rows,) = json.loads(path.read_text())["tables"].values()
    assert all(figure > 0 for row in rows.values() for figure in row.values())


@pytest.mark.mpi_launch
def test_crowd_runs(tmp_path, capsys):
    """More ranks than cores, and than the other tests have."""
    path = tmp_path / "crowd.json"
    assert main(["crowd", "--ranks", "1", "9", "--steps", "2", "--json", str(path)]) == 0
    one, nine = capsys.readouterr().out.splitlines()[-2:]
    assert one.split()[-1] == nine.split()[-1]  # the hash
    ((one,), (nine,)) = json.loads(path.read_text())["jobs"].values()
    assert one["sha256"] == nine["sha256"]
    assert one["start"] > 0 and 0 < one["processor"] < nine["processor"]
    if sys.platform == "linux":
        assert 0 < (nine["memory"] - one["memory"]) / 8 < 60e6


@pytest.mark.parametrize("name", ["scaling", "allreduce", "audit", "crowd"])
def test_a_launcher_that_does_not_exist(name, capsys):
    assert main([name, "--rounds", "1", "--mpirun", "/no/such/mpirun"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("distnet: error: cannot start /no/such/mpirun")


def test_a_child_that_fails_is_one_line():
    with pytest.raises(JobError, match=r"exit code 1.*KeyError: 'nothing'"):
        run_group(1, "distnet.benchmarks.rank_worker", {"do": "nothing"})


def test_a_group_does_not_wait_for_a_process_that_is_gone(monkeypatch):
    """Rank 1 fails, rank 0 would wait for an hour."""
    program = "import os, time; time.sleep(3600) if os.environ['RANK'] == '0' else exit('gone')"
    command = [sys.executable, "-c", program]
    monkeypatch.setattr(jobs, "_python", lambda module, task: command)
    with pytest.raises(JobError, match="exit code 1: gone"):
        run_group(2, "any", {})


@pytest.mark.mpi_launch
def test_ranks_that_fail_are_one_line():
    with pytest.raises(JobError, match="ended with exit code"):
        run_ranks([jobs.find_mpirun()], 2, "distnet.benchmarks.rank_worker", {"do": "nothing"})
