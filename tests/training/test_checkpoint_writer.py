"""A checkpoint is that of its step, however long the disk takes, and a failed one is told once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distnet.training.files import checkpoint_writer as module
from distnet.training.files.checkpoint import Checkpoint, load
from distnet.training.files.checkpoint_directory import best_path, checkpoint_path
from distnet.training.files.checkpoint_writer import CheckpointWriter, Written

WEIGHT, MOMENT, MEAN = np.zeros(5, np.float32), np.zeros(5, np.float32), np.zeros(2)


def state(step: int) -> Checkpoint:
    """The same arrays every time, filled with the number of the step."""
    for array in (WEIGHT, MOMENT, MEAN):
        array.fill(step)
    return Checkpoint(
        step, {"params.w": WEIGHT, "optimizer.m": MOMENT, "statistics.mean": MEAN}, {"lr": 1}
    )


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(tmp_path, keep=2, like=state(0))
    yield writer
    writer.close()


def write(writer: CheckpointWriter, step: int, is_best: bool = False) -> Written | None:
    writer.start(state(step), is_best)
    return writer.finished(wait=True)


def test_training_goes_on_while_the_file_is_written(writer, monkeypatch, tmp_path):
    disk_is_ready = threading.Event()

    def slow(path: Path, checkpoint: Checkpoint) -> None:
        disk_is_ready.wait(10)
        module_save(path, checkpoint)

    module_save = module.save
    monkeypatch.setattr(module, "save", slow)
    writer.start(state(3))
    assert writer.finished() is None
    state(4)  # the next step changes the arrays
    disk_is_ready.set()
    assert writer.finished(wait=True) == Written(3, None)
    loaded = load(checkpoint_path(tmp_path, 3))
    assert (loaded.state["params.w"] == 3).all()
    assert (loaded.state["optimizer.m"] == 3).all()
    assert (loaded.state["statistics.mean"] == 3).all()


def test_an_outcome_is_told_once(writer):
    assert writer.finished() is None
    assert write(writer, 1) == Written(1, None)
    assert writer.finished(wait=True) is None


def test_a_failure_does_not_keep_the_next_one_from_being_written(writer, monkeypatch, tmp_path):
    def full(path: Path, checkpoint: Checkpoint) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save", full)
        failed = write(writer, 1)
    assert failed is not None and failed.step == 1 and "No space left" in str(failed.error)
    assert write(writer, 2) == Written(2, None)
    assert list(tmp_path.iterdir()) == [checkpoint_path(tmp_path, 2)]


def test_a_bug_is_not_taken_for_a_full_disk(writer, monkeypatch):
    monkeypatch.setattr(module, "save", lambda path, checkpoint: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        write(writer, 1)


def test_the_newest_and_the_best_are_kept(writer, tmp_path):
    for step in range(1, 6):
        write(writer, step, is_best=step in (1, 2))
    names = {path.name for path in tmp_path.iterdir()}
    newest = {checkpoint_path(tmp_path, step).name for step in (4, 5)}
    assert names == newest | {best_path(tmp_path).name}
    assert load(best_path(tmp_path)).step == 2


def test_the_best_is_written_later_if_there_was_no_room_for_it(writer, monkeypatch, tmp_path):
    def full(directory: Path, step: int) -> None:
        raise OSError(28, "No space left on device")

    write(writer, 1, is_best=True)
    with monkeypatch.context() as patch:
        patch.setattr(module, "copy_best", full)
        assert write(writer, 2, is_best=True).error
        assert [write(writer, step).error is None for step in (3, 4)] == [False, False]
        assert writer.owed == 2 and load(best_path(tmp_path)).step == 1
    assert write(writer, 5) == Written(5, None)
    assert writer.owed is None and load(best_path(tmp_path)).step == 2
    steps = {path for path in tmp_path.iterdir() if path != best_path(tmp_path)}
    assert steps == {checkpoint_path(tmp_path, step) for step in (4, 5)}


def test_a_best_that_could_not_be_saved_stays_owed_until_there_is_a_better(
    writer, monkeypatch, tmp_path
):
    def full(path: Path, checkpoint: Checkpoint) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "save", full)
        write(writer, 1, is_best=True)
    assert write(writer, 2) == Written(2, None)
    assert writer.owed == 1 and not best_path(tmp_path).exists()
    write(writer, 3, is_best=True)
    assert writer.owed is None and load(best_path(tmp_path)).step == 3


def test_a_second_write_waits_to_hear_of_the_first(writer):
    writer.start(state(1))
    with pytest.raises(ValueError, match="before finished"):
        writer.start(state(2))
    assert writer.finished(wait=True) == Written(1, None)
