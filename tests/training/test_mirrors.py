"""What other tools read says what metrics.jsonl says: tables, and events for a real TensorBoard."""

from __future__ import annotations

import csv
import struct
from pathlib import Path

import pytest
from training_runs import ALONE, SIZES, STEPS_PER_EPOCH, read_metrics, succeed, write_digits

from distnet.training.files import metrics
from distnet.training.files.metrics import AppendedFile
from distnet.training.files.mirrors import CsvFiles
from distnet.training.files.tensorboard import crc32c, record, scalars

FLAGS = ("--model", "two_layer", "--epochs", "3", "--log-every", "2", "--csv", "--tensorboard")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped after a checkpoint, and after it killed: one line is to be cut off."""
    data = write_digits(tmp_path_factory.mktemp("digits"))
    out = tmp_path_factory.mktemp("runs") / "run"
    args = (*FLAGS, *SIZES, "--data-dir", data, "--out", out)
    succeed(ALONE, *args, "--stop-at", str(STEPS_PER_EPOCH + 2), code=75)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "step": 9, "loss": 77.0}\n{"eve')
    succeed(2, *args, "--resume")
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.mpi_launch
def test_tables_say_what_the_lines_say(run):
    for event in ("train", "epoch", "checkpoint"):
        lines = [line for line in read_metrics(run) if line.pop("event") == event]
        rows = table(run / "csv" / f"{event}.csv")
        assert len(rows) == len(lines) > 0
        for row, line in zip(rows, lines, strict=True):
            assert list(row) == list(line)
            for key, value in line.items():
                expected = " ".join(map(str, value)) if isinstance(value, list) else str(value)
                assert row[key] == expected
    assert sorted(path.name for path in (run / "csv").iterdir()) == [
        "checkpoint.csv",
        "epoch.csv",
        "train.csv",
    ]


@pytest.mark.mpi_launch
@pytest.mark.filterwarnings("ignore")  # of TensorBoard about itself
def test_a_real_tensorboard_reads_the_events(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = (run / "tensorboard").iterdir()  # that of the first part is gone
    found = EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    epochs = [line for line in read_metrics(run) if line["event"] == "epoch"]
    steps = [line for line in read_metrics(run) if line["event"] == "train"]
    assert [line["step"] for line in steps] == [2, 4, 6, 8, 10, 12, 14]
    for tag, lines, key in (
        ("loss/train", steps, "loss"),
        ("lr", steps, "lr"),
        ("accuracy/test", epochs, "test_accuracy"),
        ("loss/train_epoch", epochs, "train_loss"),
        ("performance/images_per_second", epochs, "images_per_second"),
    ):
        scalars = found.Scalars(tag)
        assert [each.step for each in scalars] == [line["step"] for line in lines], tag
        values = [struct.unpack("<f", struct.pack("<f", line[key]))[0] for line in lines]
        assert [each.value for each in scalars] == values, tag
    assert found.Scalars("performance/compute_seconds/rank_1")[-1].step == 3 * STEPS_PER_EPOCH
    written = found.Scalars("loss/train")[0].wall_time
    assert abs(written - path.stat().st_mtime) < 3600
    assert found.file_version == 2.0


@pytest.mark.mpi_launch
def test_a_run_that_replaces_another_leaves_nothing_of_it(tmp_path):
    data = write_digits(tmp_path)
    args = (*FLAGS[:4], *SIZES, "--data-dir", data, "--out", tmp_path / "run")
    succeed(ALONE, *args, *FLAGS[4:])
    succeed(ALONE, *args, "--overwrite")
    left = [path for name in ("csv", "tensorboard") for path in (tmp_path / "run" / name).iterdir()]
    assert left == []


def test_another_key_is_another_column(tmp_path):
    files = CsvFiles(tmp_path)
    files.add({"event": "a", "step": 1, "x": None})
    files.add({"event": "a", "step": 2, "y": 'one, "two"\n'})
    files.add({"event": "b", "step": 3})
    files.add({"event": "a", "step": 4, "x": [1, 2.5]})
    files.close()
    assert table(tmp_path / "csv" / "a.csv") == [
        {"step": "1", "x": "", "y": ""},
        {"step": "2", "x": "", "y": 'one, "two"\n'},
        {"step": "4", "x": "1 2.5", "y": ""},
    ]
    CsvFiles(tmp_path).close()
    assert list((tmp_path / "csv").iterdir()) == []


def test_a_table_that_finds_no_room_to_begin_or_to_widen_begins_later(tmp_path, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    files = CsvFiles(tmp_path)
    lines = [{"event": "a", "step": step, **({"x": step} if step > 2 else {})} for step in range(6)]
    for line in lines:
        with monkeypatch.context() as patch:
            if line["step"] in (0, 1, 3, 4):
                patch.setattr(metrics, "write_atomically", full)
                with pytest.raises(OSError, match="No space"):
                    files.add(line)
            else:
                files.add(line)
    files.flush()
    files.close()
    assert table(tmp_path / "csv" / "a.csv") == [
        {"step": str(step), "x": str(step) if step > 2 else ""} for step in range(6)
    ]


def test_a_disk_that_was_full_costs_no_line(tmp_path, monkeypatch):
    file = AppendedFile(tmp_path / "file", b"head ")
    real, fails = file._file, True

    class Full:
        def write(self, piece: bytes) -> int:
            if fails:
                raise OSError(28, "No space left on device")
            return real.write(piece[:3])  # a system may write less than it is given

    file._file = Full()
    for piece in (b"one ", b"two "):
        with pytest.raises(OSError, match="No space"):
            file.write(piece)
    fails = False
    file.flush()
    real.close()
    assert (tmp_path / "file").read_bytes() == b"head one two "


def test_the_check_of_rfc_3720():
    """Its test vectors, section B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert len(record(b"abc")) == 8 + 4 + 3 + 4


def test_what_is_no_number_has_no_tag():
    line = {"event": "epoch", "step": 1, "time": "x", "seconds": 2.0, "test_loss": None, "a": "b"}
    assert list(scalars(line)) == []
    assert list(scalars({"event": "hash", "step": 1, "x": 2.0})) == []
