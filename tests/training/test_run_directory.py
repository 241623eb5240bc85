"""A directory that cannot be used ends a run at its start; one that fills up later does not."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import launching
import numpy as np
import pytest

from distnet.parallel import SerialCommunicator
from distnet.train import train
from distnet.training.files import checkpoint_directory, checkpoint_writer, metrics, run_directory
from distnet.training.files.checkpoint import Checkpoint, load
from distnet.training.files.checkpoint_directory import checkpoint_path
from distnet.training.files.run_directory import RunDirectory


def state(step: int) -> Checkpoint:
    return Checkpoint(step, {"params.w": np.full(3, step, np.float32)})


def opened(path: Path, warnings: list[str], step: int = 0) -> RunDirectory:
    directory = RunDirectory(path, 2, comm=SerialCommunicator(), warn=warnings.append)
    directory.open("config", state(step))
    return directory


def full(*arguments: object) -> int:
    raise OSError(28, "No space left on device")


class FullFile:
    """Takes a piece of each write until its `room` is used up."""

    def __init__(self, room: int) -> None:
        self.room, self.content = room, b""

    def write(self, data: bytes) -> int:
        count = min(self.room, len(data), 5)
        if count == 0:
            full()
        self.room -= count
        self.content += data[:count]
        return count

    def close(self) -> None:
        pass


def test_a_run_leaves_all_its_files(tmp_path):
    warnings: list[str] = []
    directory = opened(tmp_path / "a" / "b", warnings)
    directory.log("train", 1, loss=0.5)
    directory.save(state(2), is_best=True)
    directory.summarize({"steps": 2})
    assert directory.close() and warnings == []
    assert load(checkpoint_path(directory.checkpoints, 2)).step == 2
    lines = (directory.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["train", "checkpoint"]
    assert json.loads(directory.summary.read_text()) == {"steps": 2}
    assert (directory.path / "config.toml").read_text() == "config"


def test_every_line_says_when(tmp_path):
    directory = opened(tmp_path, [])
    begun = datetime.now(UTC)
    directory.log("train", 1, loss=0.5)
    time.sleep(0.02)
    directory.log("train", 2, loss=0.5)
    directory.close()
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["time"].endswith("Z") and first["time"] < second["time"]
    assert abs((datetime.fromisoformat(first["time"]) - begun).total_seconds()) < 5
    assert 0 <= first["seconds"] < second["seconds"] < 5


def with_best(step: int, best_step: int) -> Checkpoint:
    return Checkpoint(step, state(step).state, record={"best_step": best_step})


@pytest.mark.parametrize("left", ["an earlier one", "none", "a damaged one"])
def test_a_best_checkpoint_that_a_kill_has_left_out_is_made_when_the_run_goes_on(tmp_path, left):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    directory.save(with_best(1, 1), is_best=left == "an earlier one")
    directory.save(with_best(2, 2), is_best=False)  # it is, but the copy is not made
    directory.close()
    best = directory.checkpoints / "best.safetensors"
    if left == "a damaged one":
        best.write_bytes(b"x" * 100)
    directory.open("config", with_best(2, 2))
    directory.close()
    assert load(best).step == 2 and warnings == []


def test_a_best_checkpoint_that_is_nowhere_is_told_of(tmp_path):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    directory.save(with_best(1, 1), is_best=True)
    directory.save(with_best(3, 2), is_best=False)
    directory.close()
    directory.open("config", with_best(3, 2))
    assert directory.close() and len(warnings) == 1
    assert "found that of an earlier step, expected that of step 2" in warnings[0]


def test_a_best_checkpoint_for_which_there_was_no_room_is_a_problem_in_the_end(
    tmp_path, monkeypatch
):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "save", full)
        directory.save(state(1), is_best=True)
        directory.check(wait=True)
    directory.save(state(2), is_best=False)
    assert not directory.close()
    assert "found none, expected that of step 1" in warnings[-1]


def test_a_summary_comes_after_the_last_checkpoint(tmp_path, monkeypatch):
    directory = opened(tmp_path, [])
    there: list[bool] = []

    def slow(path: Path, checkpoint: Checkpoint) -> None:
        time.sleep(0.2)
        there.append(directory.summary.exists())

    monkeypatch.setattr(checkpoint_writer, "save", slow)
    directory.save(state(1), is_best=False)
    directory.summarize({})
    directory.close()
    assert there == [False]


def test_a_rank_that_does_not_write_leaves_nothing(tmp_path):
    other = SerialCommunicator()
    other.rank = 1
    directory = RunDirectory(tmp_path / "out", 2, comm=other, warn=pytest.fail)
    directory.open("config", state(0))
    directory.log("train", 1)
    directory.save(state(1), is_best=False)
    directory.check()
    directory.summarize({})
    assert directory.close()
    assert list(tmp_path.iterdir()) == []


def test_what_earlier_runs_left_does_not_speak_for_this_one(tmp_path):
    opened(tmp_path, []).close()
    (tmp_path / "summary.json").write_text("{}")
    partial = tmp_path / "checkpoints" / ".step-00000001.safetensors.77.partial"
    partial.touch()
    (tmp_path / ".summary.json.77.partial").touch()
    opened(tmp_path, [], step=3).close()
    assert not (tmp_path / "summary.json").exists()
    assert list(tmp_path.rglob("*.partial")) == []


@pytest.mark.parametrize("blocked", ["", "checkpoints", "metrics.jsonl", "config.toml"])
def test_a_directory_that_cannot_be_written_is_bad_input(tmp_path, blocked):
    out = tmp_path / "out"
    if blocked in ("", "checkpoints"):  # a file where a directory is needed
        out.joinpath(blocked).parent.mkdir(exist_ok=True)
        out.joinpath(blocked).touch()
    else:
        out.joinpath(blocked, "x").mkdir(parents=True)
    with pytest.raises(OSError, match=r"--out: found .*where nothing can be written") as caught:
        opened(out, [])
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_told_at_each_checkpoint_and_forgotten_when_one_succeeds(
    tmp_path, monkeypatch
):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_writer, "save", full)
        directory.save(state(1), is_best=False)
        directory.save(state(2), is_best=False)
        directory.check(wait=True)
    told = [f"{tmp_path}: checkpoint of step {step} could not be written (No sp" for step in (1, 2)]
    assert [w[: len(t)] for w, t in zip(warnings, told, strict=True)] == told
    directory.save(state(3), is_best=False)
    assert directory.close()
    assert len(warnings) == 2


def test_a_last_checkpoint_that_is_not_there_is_not_forgotten(tmp_path, monkeypatch):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    monkeypatch.setattr(checkpoint_writer, "save", full)
    directory.save(state(1), is_best=False)
    assert not directory.close()
    assert len(warnings) == 1


def test_lines_that_found_no_room_are_written_when_there_is_some(tmp_path):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    directory._metrics.close()
    file = FullFile(room=60)
    directory._metrics._file._file = file  # type: ignore[assignment]
    for step in range(1, 6):
        directory.log("train", step)
    assert len(warnings) == 1, "once, not for every line"
    file.room = 1000
    assert directory.close()
    assert [json.loads(line)["step"] for line in file.content.splitlines()] == [1, 2, 3, 4, 5]


def test_a_full_disk_does_not_end_a_run_that_goes_on_after_a_loss(tmp_path, monkeypatch):
    """It opens its directory once more; when it starts, that is bad input."""
    warnings: list[str] = []
    directory = RunDirectory(
        tmp_path, 2, comm=SerialCommunicator(), warn=warnings.append, mirrors=["csv", "tensorboard"]
    )
    directory.open("config", state(0))
    directory.log("train", 1, loss=0.5)
    directory.save(state(1), is_best=True)
    directory.log("train", 2, loss=0.5)
    assert directory.close() and warnings == []
    (directory.checkpoints / "best.safetensors").unlink()
    for module in (metrics, run_directory, checkpoint_directory):
        monkeypatch.setattr(module, "write_atomically", full)
    reached = replace(state(1), record={"best_step": 1})
    with pytest.raises(OSError, match="No space left on device"):
        directory.open("config", reached)
    directory.open("config", reached, goes_on=True)
    directory.log("train", 2, loss=0.5)
    assert not directory.close() and "tensorboard could not be written" in warnings[0]
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["event"] == "train"] == [1, 2]


def test_a_summary_that_cannot_be_written_is_told(tmp_path):
    warnings: list[str] = []
    directory = opened(tmp_path, warnings)
    directory.summary.mkdir()
    directory.summarize({})
    assert "summary.json could not be written" in warnings[0]
    assert not directory.close()


def test_the_last_line_names_no_summary_that_is_not_there(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(run_directory, "write_summary", full)
    argv = ["--model", "two_layer", "--steps", "2", "--out", str(tmp_path)]
    assert train(SerialCommunicator(), argv) == 74
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].endswith(" after 2 steps")
    assert "summary.json could not be written" in err


def test_the_command_goes_on_without_room_for_checkpoints_and_says_so_by_its_exit_code(tmp_path):
    """A limit on the size of files: enough for metrics and summary, not for a checkpoint."""
    code = f"""
        import os, resource, sys
        from distnet.parallel import run_command
        from distnet.train import train
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        sys.argv[1:] = "--model two_layer --steps 4 --checkpoint-every 2 --log-every 1".split()
        sys.argv += ["--out", {str(tmp_path)!r}]
        sys.exit(run_command(train, os.environ))
    """
    ended = launching.run([sys.executable, "-c", textwrap.dedent(code)])
    assert ended.returncode == 74, ended.stderr
    for step in (2, 4):
        assert f"checkpoint of step {step} could not be written (File too large)" in ended.stderr
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 4
    assert os.listdir(tmp_path / "checkpoints") == []
