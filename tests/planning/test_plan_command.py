"""`distnet plan` as it is used: from flags, from runs that were measured, and what it refuses."""

from __future__ import annotations

import itertools
import json

import pytest

from distnet.__main__ import main

BY_HAND = [
    "--parameters=1000000",
    "--batch-size=1024",
    "--micro-batch-size=32",
    "--micro-batch-seconds=0.02",
]


def plan(capsys, *argv):
    assert main(["plan", *argv]) == 0
    return capsys.readouterr().out


def as_json(capsys, *argv):
    return json.loads(plan(capsys, *argv, "--json"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run on one rank, of two batch sizes, as `distnet train` leaves them."""
    directory = tmp_path_factory.mktemp("runs")
    common = ["train", "--model=two_layer", "--micro-batch-size=25", "--quiet", "--steps=12"]
    for batch in (100, 200):
        out = str(directory / str(batch))
        assert main([*common, f"--batch-size={batch}", f"--out={out}"]) == 0
    return directory


def test_a_plan_by_hand_has_a_row_for_every_number_of_ranks(capsys):
    rows = as_json(capsys, *BY_HAND, "--bandwidth=100")["rows"]
    assert [row["step"]["num_ranks"] for row in rows] == [2**k for k in range(13)]
    assert rows[0]["efficiency"] == 1
    assert all(a["efficiency"] >= b["efficiency"] for a, b in itertools.pairwise(rows))


def test_all_that_is_said_fits_together(capsys):
    text = plan(capsys, *BY_HAND, "--steps=1000", "--price=2", "--mtbf-hours=100", "--simulate=50")
    for word in (
        "ranks  hosts",
        "advice: the most ranks",
        "cheapest:",
        "played: 50 steps",
        "not known",
    ):
        assert word in text


def test_a_slow_link_is_answered_by_fewer_bytes(capsys):
    advice = " ".join(as_json(capsys, *BY_HAND, "--bandwidth=20", "--ranks", "1", "4")["advice"])
    assert "exact32 takes" in advice and "local, 4 islands every 10 steps, exact8 takes" in advice


@pytest.mark.parametrize(
    "options",
    [
        ["--batch-size=20", "--micro-batch-size=30"],
        ["--bucket-bytes=1073741825"],
        ["--sync=local", "--islands=20", "--sync-reduction=exact4"],
        ["--sync=local", "--islands=200"],
        ["--sync=local", "--shard-optimizer"],
    ],
)
def test_what_training_refuses_is_refused_in_the_same_words(options, capsys):
    batch = ["--batch-size=100", "--micro-batch-size=20"]
    with pytest.raises(SystemExit):
        main(["train", "--model=two_layer", "--steps=2", *batch, *options])
    refused = capsys.readouterr().err
    assert main(["plan", "--parameters=100", "--micro-batch-seconds=0.1", *batch, *options]) == 2
    assert capsys.readouterr().err == refused


def test_only_what_training_takes_is_advised_and_played(capsys):
    few = [*BY_HAND, "--batch-size=3", "--micro-batch-size=1", "--bandwidth=1", "--shard-optimizer"]
    assert " islands" not in plan(capsys, *few)
    assert main(["plan", *few, "--simulate=10"]) == 2
    assert "--islands: found 4, expected at most --batch-size 3" in capsys.readouterr().err
    assert "islands" in plan(capsys, *few, "--simulate=10", "--islands=3")


def test_a_run_says_what_was_measured(runs, capsys):
    found = as_json(capsys, str(runs / "100"))
    workload = found["workload"]
    assert (workload["parameters"], workload["batch_size"]) == (39760, 100)
    assert workload["micro_batch_seconds"] > 0 and workload["deviation"] > 0
    assert any("every rank does for itself" in line for line in found["unknown"])
    assert "1 rank took" in plan(capsys, str(runs / "100"))


def test_runs_of_different_batches_do_not_go_together(runs, capsys):
    assert main(["plan", str(runs / "100"), str(runs / "200")]) == 2
    assert "expected runs of one network and batch" in capsys.readouterr().err


@pytest.fixture
def two_runs(runs, tmp_path):
    """`two_runs(one, four)`: on one rank and on four, seconds that each rank computed in a step."""

    def leave(*seconds):
        for ranks, each in zip((1, 4), seconds, strict=True):
            run = tmp_path / str(ranks)
            run.mkdir()
            (run / "config.toml").write_text((runs / "100" / "config.toml").read_text())
            line = {
                "event": "epoch",
                "step": 10,
                "compute_seconds": [10 * each] * ranks,
                "micro_batches": [40 // ranks] * ranks,
                "compute_deviation": [0.1] * ranks,
            }
            (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return [str(tmp_path / name) for name in "14"] + ["--parameters=39760"]

    return leave


def test_two_numbers_of_ranks_tell_what_is_not_shared_out(two_runs, capsys):
    workload = as_json(capsys, *two_runs(4 * 0.010 + 0.003, 0.010 + 0.003))["workload"]
    assert workload["micro_batch_seconds"] == pytest.approx(0.010)
    assert workload["step_seconds"] == pytest.approx(0.003)


def test_runs_that_contradict_each_other_are_no_line_that_falls(two_runs, capsys):
    """One micro-batch took longer than four, as it may on a busy machine."""
    found = as_json(capsys, *two_runs(0.010, 0.015))
    assert found["workload"]["micro_batch_seconds"] == pytest.approx(0.015)
    assert found["workload"]["step_seconds"] == 0
    assert any("a rank computed no longer for more micro-batches" in s for s in found["unknown"])


def test_what_every_rank_does_for_itself_can_be_given(two_runs, capsys):
    directories = two_runs(4 * 0.010 + 0.003, 0.010 + 0.003)
    workload = as_json(capsys, *directories, "--step-seconds=0.001")["workload"]
    assert workload["step_seconds"] == 0.001
    assert main(["plan", *directories, "--step-seconds=1"]) == 2
    assert "step_seconds: found 1, expected less than" in capsys.readouterr().err


def test_numbers_that_are_long_stay_apart(capsys):
    text = plan(capsys, *BY_HAND[:3], "--micro-batch-seconds=12.3456", "--ranks", "1", "2")
    head, *rows = text.splitlines()[2:5]
    assert [len(row.split()) for row in rows] == [13, 13]
    assert rows[0].split()[2] == "3.951e+05" and head.split()[:3] == ["ranks", "hosts", "step"]


@pytest.mark.parametrize(
    ("config", "change", "words"),
    [
        ("", {}, "found no batch_size and micro_batch_size in config.toml"),
        (None, {"compute_seconds": None}, "metrics.jsonl is damaged"),
        (None, {"micro_batches": "4"}, "metrics.jsonl is damaged"),
        (None, {"images_per_second": "x"}, "metrics.jsonl is damaged"),
    ],
)
def test_a_damaged_run_is_one_line(runs, tmp_path, capsys, config, change, words):
    whole = (runs / "100" / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(whole if config is None else config)
    line = {"event": "epoch", "step": 10, "compute_seconds": [0.1], "micro_batches": [40]}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line | change) + "\n")
    assert main(["plan", str(tmp_path), "--parameters=39760"]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_a_measured_network_comes_from_a_file(tmp_path, capsys):
    file = tmp_path / "network.toml"
    file.write_text("message_bytes = [8, 1024, 1048576]\nmessage_seconds = [0.02, 0.02, 0.1]\n")
    link = as_json(capsys, *BY_HAND, f"--config={file}")["link"]
    assert link["sizes"] == [8, 1024, 524288]
    assert link["bytes_per_second"] == pytest.approx((1048576 - 1024) / 0.08)
    assert link["delays"] == pytest.approx([0.02, 0.02, 0.01], rel=0.02)


def test_a_page_that_is_there_is_replaced_only_with_overwrite(tmp_path, capsys):
    page = tmp_path / "plan.html"
    page.write_text("mine")
    assert main(["plan", *BY_HAND, f"--html={page}"]) == 2
    assert f"{page}: found a file there already; give --overwrite" in capsys.readouterr().err
    assert page.read_text() == "mine"
    plan(capsys, *BY_HAND, f"--html={page}", "--overwrite")
    assert page.read_text() != "mine"


def test_the_page_has_curves_and_can_be_sent_on(tmp_path, capsys):
    page = tmp_path / "plan.html"
    plan(capsys, *BY_HAND, f"--html={page}", "--mtbf-hours=10", "--simulate=20")
    text = page.read_text()
    assert text.count("<polyline") == 4 * 5
    assert "<script" not in text and "default-src 'none'" in text


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "found no --parameters, --batch-size"),
        (["nowhere"], "found no config.toml"),
        ([*BY_HAND, "--ranks=6", "--ranks-per-host=4"], "expected a multiple of"),
        ([*BY_HAND, "--message-bytes=8"], "expected as many, at least two"),
        ([*BY_HAND, "--ranks=5000"], "--ranks"),
        ([*BY_HAND, "--micro-batch-size=2000"], "expected at most --batch-size 1024"),
        ([*BY_HAND, "--bandwidth=0"], "--bandwidth"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(argv, words, capsys):
    assert main(["plan", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
