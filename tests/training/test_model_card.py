"""README.md of a run says what its summary says, and a user's own is left alone."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from training_runs import ALONE, NUM_TRAIN, SIZES, read_summary, succeed, write_digits

import distnet
from distnet.parallel import REDUCTIONS
from distnet.training.config import TrainConfig, parse
from distnet.training.files.run_directory import CARD_MARK
from distnet.training.model_card import _again, _command

FLAGS = ("--model", "lenet5", "--width", "0.5", "--epochs", "2", "--lr", "0.002")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def rows(text: str) -> dict[str, str]:
    return dict(re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE))


@pytest.mark.mpi_launch
def test_the_card_says_what_the_run_was(data_dir, tmp_path):
    out = tmp_path / "run"
    args = (*FLAGS, *SIZES, "--data-dir", data_dir, "--out", out)
    succeed(2, *args, "--stop-at", "3", code=75)
    assert not (out / "README.md").exists(), "before the end there is nothing to say"
    succeed(ALONE, *args, "--resume")
    text, summary = (out / "README.md").read_text(), read_summary(out)
    assert text.startswith(f"{CARD_MARK}\n\n# lenet5 on {data_dir.name}\n")
    found = rows(text)
    assert found["test accuracy at the end"] == f"{summary['test_accuracy']:.2%}"
    assert found["best checkpoint"] == (
        f"{summary['best_test_accuracy']:.2%} after step {summary['best_step']}, chosen by the "
        "test samples"
    )
    assert found["length"] == "10 steps, 2 epochs"
    assert f"{NUM_TRAIN} samples" in found["trained on"]
    assert summary["params_sha256"] in found["parameters"]
    assert "a little too good" in text
    command = re.search(r"`distnet train (--.*?)`", text.replace("\n", " "))
    config = parse(command[1].split())
    assert config == TrainConfig(model="lenet5", width=0.5, epochs=2, lr=0.002, batch_size=50,
                                 micro_batch_size=16, data_dir=str(data_dir))  # fmt: skip
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"images": distnet.load_dataset("mnist", data_dir).test.inputs[:2]}
    exec(code, names)
    assert names["network"].classes == tuple("0123456789")


@pytest.mark.mpi_launch
def test_a_readme_of_the_user_is_left_alone(data_dir, tmp_path):
    (tmp_path / "README.md").write_text("Mine.\n")
    args = (*FLAGS, *SIZES, "--data-dir", data_dir, "--out", tmp_path)
    succeed(ALONE, *args, "--steps", "2")
    assert (tmp_path / "README.md").read_text() == "Mine.\n"


def test_only_what_was_chosen_is_shown():
    for command, config in {
        "distnet train": TrainConfig(),
        "distnet train --optimizer sgd --seed 3": TrainConfig(optimizer="sgd", seed=3, out="x"),
        "distnet train --augment-flip": TrainConfig(augment_flip=True),
        "distnet train --model resnet20 --no-shortcuts": TrainConfig(
            model="resnet20", shortcuts=False
        ),
    }.items():
        assert _command(config) == command


def test_what_is_read_is_shown_though_its_name_decides_nothing():
    shown = _command(TrainConfig(data_dir="my data", init="runs/a"))
    assert shown == "distnet train --data-dir 'my data' --init runs/a"


def test_names_with_spaces_and_signs_do_not_break_the_card(tmp_path):
    """Commands can be copied, and names are read as they are: none is a tag or a column."""
    data_dir, out = tmp_path / "a | b", tmp_path / "my run"
    data_dir.mkdir()
    labels = np.array(["<b>", "x*y*"])[np.arange(90) % 2]
    np.savez(data_dir / "a.npz", x_train=np.zeros((90, 8, 8), np.uint8), y_train=labels)
    flags = ("--arithmetic", "portable", "--steps", "1", "--model", "two_layer", *SIZES)
    succeed(ALONE, *flags, "--data-dir", data_dir, "--out", out)
    text = (out / "README.md").read_text()
    assert r"apart: \<b>, x\*y\*." in text
    assert rows(text)["trained on"].startswith(r"a \| b, ")
    assert "arithmetic portable" in rows(text)["computed by"]
    assert "same bits on any machine" in text.replace("\n", " ")
    for command in re.findall(r"`distnet (?:predict|evaluate|report|train) (.*?)`", text):
        assert any(
            str(path) in shlex.split(command) for path in (out, out / "config.toml", data_dir)
        )


def test_the_same_bits_are_promised_for_every_exact_sum():
    for name, kind in REDUCTIONS.items():
        assert ("same bits" in _again(TrainConfig(reduction=name))) == kind.exact
