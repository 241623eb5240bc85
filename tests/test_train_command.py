"""The training command as its users meet it: exit codes, error lines, and the files of a run."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import launching
import numpy as np
import pytest
from training_runs import (
    ALONE,
    SIZES,
    STEPS_PER_EPOCH,
    checkpoint,
    events,
    own_lines,
    read_metrics,
    read_summary,
    run_python,
    succeed,
    train,
    write_digits,
)

from distnet.data import load_dataset
from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES

pytestmark = pytest.mark.mpi_launch

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = IDX_FILES
MODEL = ("--model", "two_layer", "--lr", "0.01")
STEPS = 2 * STEPS_PER_EPOCH
SUMMARY = """
model data ranks epochs steps batch_size micro_batch_size seed reduction test_accuracy test_loss
train_loss images_per_second wall_seconds params_sha256 fingerprint
data_sha256 classes input_shape scale
"""

on_1_and_3_ranks = pytest.mark.parametrize("num_ranks", [ALONE, 3], ids=["alone", "3-ranks"])


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def flags(data_dir: Path) -> tuple[str, ...]:
    """A run of two epochs that takes a moment."""
    return (*MODEL, *SIZES, "--data-dir", str(data_dir), "--steps", str(STEPS))


@pytest.fixture(scope="module")
def finished(flags: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of such a run; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    succeed(ALONE, *flags, "--log-every", "2", "--out", out)
    return out


def error_line(num_ranks: int, *args: str | Path, code: int = 2) -> str:
    """The one line that the command ends with."""
    process = train(num_ranks, *args)
    assert process.returncode == code, process.stderr
    (line,) = own_lines(process)
    assert line.startswith("distnet: error: ")
    return line.removeprefix("distnet: error: ")


# Bad input.


@on_1_and_3_ranks
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--epoch 3", "unknown option '--epoch'; did you mean --epochs?"),
        ("--lr fast", "--lr: found 'fast', expected a number > 0 and <= 1000"),
        ("--batch-size 10 --micro-batch-size 11", "--micro-batch-size: found 11, expected at most"),
        ("--config /nowhere/at-all.toml", "/nowhere/at-all.toml: found no file, expected a TOML"),
        ("--config /", "/: found no file, expected a TOML file"),
        (
            "--schedule step --milestones 0.9 0.1",
            "schedule: milestones: found (0.9, 0.1), expected",
        ),
        ("--data-dir /nowhere/at-all", "/nowhere/at-all: found no such directory, expected one"),
    ],
)
def test_a_wrong_command_line(num_ranks, arguments, message):
    assert error_line(num_ranks, *arguments.split()).startswith(message)


@on_1_and_3_ranks
@pytest.mark.parametrize("more", [(), ("--audit", "1"), ("--sync", "local", "--islands", "2")])
def test_a_way_of_sums_that_the_ranks_cannot_have(num_ranks, flags, tmp_path, more):
    line = error_line(num_ranks, *flags, "--exchange", "leaders", "--out", tmp_path, *more)
    assert "exchange leaders: found" in line and line.endswith("take exchange auto")


@on_1_and_3_ranks
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs = ", "not valid TOML"),
        (b"epoch = 3", "unknown key 'epoch'; did you mean epochs?"),
        (b"epochs = 'three'", "epochs: found 'three', expected a whole number"),
        (b"\xff\xfe", "found byte 0xff at offset 0, expected UTF-8 text"),
    ],
)
def test_a_wrong_configuration_file(num_ranks, tmp_path, content, message):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    assert error_line(num_ranks, "--config", path).startswith(f"{path}: {message}")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap_magic_number(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x08\x02" + path.read_bytes()[4:])


def write_36_labels(path: Path) -> None:
    path.write_bytes(format_idx(np.zeros(36, np.uint8)))


@on_1_and_3_ranks
@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        (TRAIN_IMAGES, truncate, r"found 180319 bytes after the header, expected 180320"),
        (TRAIN_LABELS, swap_magic_number, r"found magic number 0x00000802, expected 0x00000801"),
        (TEST_LABELS, write_36_labels, r"found 36, expected 37, one for each image"),
        (TEST_IMAGES, Path.unlink, rf"found no file {TEST_IMAGES}, expected it there"),
    ],
    ids=["truncated", "magic-number", "too-few-labels", "missing"],
)
def test_a_damaged_data_set(
    num_ranks: int, tmp_path: Path, file: str, damage: Callable[[Path], None], message: str
):
    path = write_digits(tmp_path) / file
    damage(path)
    where = tmp_path if damage is Path.unlink else path
    line = error_line(num_ranks, *MODEL, "--data-dir", tmp_path, "--out", tmp_path / "out")
    assert line.startswith(f"{where}: ")
    assert re.search(message, line)
    assert not (tmp_path / "out").exists()


@on_1_and_3_ranks
@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("deep_convnet", "pool3, whose input is 64 x 1 x 1"),
        ("simple_convnet", "conv1, whose input"),
    ],
)
def test_images_that_are_too_small(num_ranks, tmp_path, model, layer):
    for name in IDX_FILES:
        array = np.zeros((20, 2, 2)) if "images" in name else np.arange(20) % 2
        (tmp_path / name).write_bytes(format_idx(array.astype(np.uint8)))
    line = error_line(
        num_ranks, "--model", model, "--data-dir", tmp_path, "--out", tmp_path / "out"
    )
    assert line.startswith(f"--model {model} for images of 1 x 2 x 2: {layer}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("num_images", [37, 90_000])
def test_data_replaced_during_a_run(tmp_path, num_images):
    """A small file has been read; of a large one, which is read as it is needed, a line says so."""
    directory, out = write_digits(tmp_path), tmp_path / "out"
    with (directory / TRAIN_IMAGES).open("wb") as file:
        file.write(struct.pack(">4I", 0x803, num_images, 28, 28))
        file.truncate(16 + num_images * 784)
    (directory / TRAIN_LABELS).write_bytes(format_idx(np.zeros(num_images, np.uint8)))
    command = [sys.executable, "-m", "distnet.train", *MODEL, "--data-dir", str(directory)]
    steps = "300" if num_images == 37 else "1000000"
    command += ["--out", str(out), "--steps", steps, "--no-progress"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        while not (out / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.05)
        shutil.copyfile(directory / TEST_IMAGES, directory / TRAIN_IMAGES)
        _, error = process.communicate(timeout=launching.HUNG_SECONDS)
    if num_images == 37:
        assert (process.returncode, error) == (0, "")
    else:
        assert process.returncode == 2 and error.count("\n") == 1
        assert error.startswith(
            f"distnet: error: {directory / TRAIN_IMAGES}: found a file that was"
        )


@on_1_and_3_ranks
def test_nothing_to_resume(num_ranks, flags, tmp_path):
    line = error_line(num_ranks, *flags, "--out", tmp_path / "new", "--resume")
    assert f"{tmp_path / 'new' / 'checkpoints'}: found no checkpoint, expected one" in line


@on_1_and_3_ranks
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--model simple_convnet", "model: found 'two_layer', expected 'simple_convnet'"),
        ("--seed 8", "seed: found 0, expected 8"),
        ("--steps 9", "steps: found 10, expected 9"),
    ],
)
def test_resuming_another_run(num_ranks, flags, finished, changed, message):
    line = error_line(num_ranks, *flags, "--out", finished, "--resume", *changed.split())
    assert message in line


def test_ranks_that_find_different_checkpoints(flags, finished, tmp_path):
    """The results are on no file system that the hosts share, or one that shows them late."""
    for rank in (0, 1):
        shutil.copytree(finished, tmp_path / str(rank) / "run")
        (tmp_path / str(rank) / "run" / "summary.json").unlink()
    checkpoint(tmp_path / "1" / "run", STEPS).unlink()
    process = launching.mpirun_apart(
        tmp_path, "-m", "distnet.train", *flags, "--out", "run", "--resume"
    )
    assert process.returncode == 2, process.stderr
    (line,) = own_lines(process)
    assert line.startswith(
        "distnet: error: the ranks differ in the step of the checkpoint: 10 on rank 0; 5 on rank 1"
    )


def test_resuming_beyond_the_end(flags, tmp_path):
    """Without a schedule that refers to it, the length of a run may be changed."""
    run = (*flags, "--schedule", "constant", "--out", tmp_path)
    succeed(ALONE, *run, "--steps", "4")
    succeed(ALONE, *run, "--steps", "6", "--resume")
    line = error_line(ALONE, *run, "--steps", "3", "--resume")
    assert line.startswith("checkpoint of step 6: expected one up to step 3, the last of this run")


@on_1_and_3_ranks
def test_resuming_with_other_data(num_ranks, flags, finished, tmp_path):
    path = write_digits(tmp_path) / TRAIN_LABELS
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    line = error_line(num_ranks, *flags, "--data-dir", tmp_path, "--out", finished, "--resume")
    assert "data_sha256: found '" in line


@on_1_and_3_ranks
def test_a_file_where_results_should_go(num_ranks, flags, tmp_path):
    out = tmp_path / "file"
    out.touch()
    line = error_line(num_ranks, *flags, "--out", out)
    assert f"--out: found {out}, where nothing can be written (Not a directory)" in line


# Ranks that cannot go on.


def test_divergence_is_the_same_line_on_any_number_of_ranks(flags, tmp_path):
    """It names the step, the layer and the value; only the rank where it came up may differ."""
    wild = (*flags, "--model", "deep_convnet", "--optimizer", "sgd", "--lr", "1000")
    lines = [error_line(n, *wild, "--out", tmp_path, code=1) for n in (ALONE, 1, 3)]
    everywhere = {re.sub(r"on rank \d", "on rank R", line) for line in lines}
    assert len(everywhere) == 1
    gradient = r"the gradient of (conv|linear)\d\.(weight|bias) is \S+ in micro-batch \d on rank R"
    assert re.match(rf"step \d+: .*{gradient}, expected a finite number", everywhere.pop())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("--seed 1", "the ranks differ in seed: 0 on rank 0; 1 on rank 1; start every rank with"),
        ("--stop-at 3", "the ranks differ in stop_at: 0 on rank 0; 3 on rank 1; start every rank"),
        ("--bucket-bytes 2048", "the ranks differ in bucket_bytes: 0 on rank 0; 2048 on"),
    ],
)
def test_ranks_with_different_configurations(flags, tmp_path, other, message):
    command = (*flags, "--out", str(tmp_path))
    second = (":", "-n", "1", sys.executable, "-m", "distnet.train", *command, *other.split())
    assert error_line(1, *command, *second).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_ranks_with_different_code(flags, tmp_path):
    """A host on which another version is installed than on the others."""
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(launching.ROOT / "distnet", other / "distnet")
    with (other / "distnet" / "nn" / "losses.py").open("a") as file:
        file.write("# of another day\n")
    command = ("-m", "distnet.train", *flags, "--out", str(out))
    second = (":", "-n", "1", "env", f"PYTHONPATH={other}", sys.executable, *command)
    process = launching.mpirun(1, *command, *second, cwd=tmp_path)
    assert process.returncode == 2, process.stderr
    (line,) = own_lines(process)
    assert line.startswith("distnet: error: the ranks differ in distnet's code: ")
    assert line.endswith("; install the same environment on all hosts")
    assert not out.exists()


# The files of a run.


def test_the_summary_tells_what_was_run(finished, data_dir):
    summary = read_summary(finished)
    assert set(SUMMARY.split()) <= set(summary)
    assert (summary["model"], summary["ranks"], summary["steps"]) == ("two_layer", 1, STEPS)
    assert (summary["batch_size"], summary["micro_batch_size"]) == (50, 16)
    assert (summary["epochs"], summary["seed"], summary["reduction"]) == (2, 0, "exact")
    assert re.fullmatch("[0-9a-f]{64}", summary["params_sha256"])
    assert summary["fingerprint"]["numpy"] == np.__version__
    data = load_dataset(data_dir=data_dir)
    assert summary["data_sha256"] == data.sha256 and summary["scale"] == 1 / 255
    assert (*summary["classes"],) == data.classes and (*summary["input_shape"],) == (1, 28, 28)
    assert 0 < summary["test_accuracy"] <= 1
    assert summary["images_per_second"] > 0


def test_the_configuration_can_be_run_again(finished, tmp_path):
    config = finished / "config.toml"
    succeed(ALONE, "--config", config, "--out", tmp_path)
    assert read_summary(tmp_path)["params_sha256"] == read_summary(finished)["params_sha256"]
    again = tomllib.loads((tmp_path / "config.toml").read_text())
    assert again == tomllib.loads(config.read_text()) | {"out": str(tmp_path)}


# What an epoch line tells of the work, beside what it computed.
HOW_FAST = {
    "elapsed_seconds",
    "time",
    "seconds",
    "images_per_second",
    "wait_share",
    "bytes_per_step",
    "slowest_rank",
    "compute_seconds",
    "compute_deviation",
    "micro_batches",
}
EVENTS = [
    ("train", 2),
    ("train", 4),
    ("epoch", 5),
    ("checkpoint", 5),
    ("train", 6),
    ("train", 8),
    ("train", 10),
    ("epoch", 10),
    ("checkpoint", 10),
]


def test_the_metrics_tell_every_step_once(finished):
    assert events(finished) == EVENTS
    for line in read_metrics(finished):
        expected = {"train": {"loss", "lr"}, "epoch": {"train_loss", "test_accuracy"}}
        assert expected.get(line["event"], set()) <= set(line)


def test_the_metrics_of_a_resumed_run_are_those_of_an_unbroken_one(flags, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    first = checkpoint(out, STEPS_PER_EPOCH)
    succeed(2, *flags, "--log-every", "2", "--out", out, "--resume", first)
    assert [without_speed(line) for line in read_metrics(out)] == [
        without_speed(line) for line in read_metrics(finished)
    ]
    assert read_summary(out)["params_sha256"] == read_summary(finished)["params_sha256"]


def without_speed(line: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in line.items() if key not in HOW_FAST}


def test_stopping_early_and_going_on(flags, tmp_path):
    run = (*flags, "--log-every", "2", "--out", tmp_path)
    succeed(2, *run, "--stop-at", "7", code=75)
    assert not (tmp_path / "summary.json").exists()
    assert events(tmp_path) == [*EVENTS[:5], ("checkpoint", 7)]
    succeed(3, *run, "--resume")
    assert events(tmp_path) == [*EVENTS[:5], ("checkpoint", 7), *EVENTS[5:]]
    assert read_summary(tmp_path)["ranks"] == 3


def test_a_resumed_run_can_be_run_again_from_its_configuration(flags, finished, tmp_path):
    out, again = tmp_path / "resumed", tmp_path / "again"
    succeed(ALONE, *flags, "--out", out, "--stop-at", "3", code=75)
    succeed(ALONE, *flags, "--out", out, "--resume")
    succeed(ALONE, "--config", out / "config.toml", "--out", again)
    assert read_summary(again)["params_sha256"] == read_summary(finished)["params_sha256"]


def test_a_finished_run_has_nothing_to_resume_and_keeps_its_results(flags, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    succeed(2, *flags, "--log-every", "2", "--out", out, "--resume")
    assert events(out) == EVENTS
    for key in ("params_sha256", "test_accuracy", "test_loss", "train_loss"):
        assert read_summary(out)[key] == read_summary(finished)[key]


# A process of its own.


def test_without_mpi4py(flags, finished, tmp_path):
    program = (
        "import runpy, sys; sys.modules['mpi4py'] = None; sys.argv[0] = 'train'; "
        "runpy.run_module('distnet.train', run_name='__main__')"
    )
    process = run_python("-c", program, *flags, "--out", str(tmp_path))
    assert (process.returncode, process.stderr) == (0, "")
    assert read_summary(tmp_path)["params_sha256"] == read_summary(finished)["params_sha256"]


@on_1_and_3_ranks
def test_output_that_fails_costs_nothing_but_lines(num_ranks, flags, finished, tmp_path):
    """The program's own streams: mpirun has others, and ends when it cannot write to them."""
    program = (
        "import os, runpy, sys; full = os.open('/dev/full', os.O_WRONLY); "
        "os.dup2(full, 1); os.close(2); sys.argv[0] = 'train'; "
        "runpy.run_module('distnet.train', run_name='__main__')"
    )
    argv = ["-c", program, *flags, "--out", str(tmp_path)]
    process = run_python(*argv) if num_ranks == ALONE else launching.mpirun(num_ranks, *argv)
    assert process.returncode == 0
    assert read_summary(tmp_path)["params_sha256"] == read_summary(finished)["params_sha256"]


# Evaluation and reductions.


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("size", ["7", "13"])
def test_accuracy_is_a_count_of_samples(flags, tmp_path, num_ranks, size):
    """37 test samples: whatever the pieces are, the accuracy is a multiple of 1/37."""
    outs = [tmp_path / "shared", tmp_path / "alone"]
    for ranks, out in zip((num_ranks, ALONE), outs, strict=True):
        succeed(ranks, *flags, "--steps", "4", "--micro-batch-size", size, "--out", out)
    summaries = [read_summary(out) for out in outs]
    for key in ("test_accuracy", "test_loss"):
        assert summaries[0][key] == summaries[1][key]
    count = summaries[0]["test_accuracy"] * 37
    assert count == pytest.approx(round(count), abs=1e-9)


def test_an_inexact_reduction_says_so_and_comes_close(flags, finished, tmp_path):
    process = train(3, *flags, "--reduction", "float32", "--out", tmp_path)
    assert process.returncode == 0
    assert own_lines(process) == [
        "distnet: warning: reduction float32: the result depends on the number of ranks"
    ]
    test_losses = [read_summary(out)["test_loss"] for out in (tmp_path, finished)]
    assert test_losses[0] == pytest.approx(test_losses[1], rel=1e-4)
