"""Models leave and come back by one file, and a run can be opened."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from training_runs import write_digits

import distnet
from distnet.parallel import SerialCommunicator
from distnet.train import train
from distnet.training.files import checkpoint
from distnet.training.files.checkpoint import Checkpoint, CheckpointError
from distnet.training.files.model_file import initialize

IMAGES = np.random.default_rng(0).integers(0, 256, (150, 1, 8, 8), np.uint8)


@pytest.fixture
def network() -> distnet.Network:
    layers = [distnet.Conv2d(4, 3, pad=1), distnet.BatchNorm(), distnet.ReLU(), distnet.Linear(3)]
    network = distnet.Network(layers, (1, 8, 8), seed=4)
    labels = np.random.default_rng(1).integers(0, 3, len(IMAGES))
    distnet.fit(network, IMAGES, labels, steps=5)  # so that there are statistics
    return network


def test_what_was_saved_predicts_the_same(network, tmp_path):
    distnet.save(network, tmp_path / "net.safetensors", classes=["a", "ü", "c"])
    loaded = distnet.load(tmp_path / "net.safetensors")
    assert loaded.classes == ("a", "ü", "c")
    np.testing.assert_array_equal(loaded.predict(IMAGES), network.predict(IMAGES))


def test_a_tilde_is_the_home_directory_on_both_ways(monkeypatch, network, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    distnet.save(network, "~/net.safetensors")
    assert (tmp_path / "net.safetensors").exists()
    np.testing.assert_array_equal(
        distnet.load("~/net.safetensors").predict(IMAGES), network.predict(IMAGES)
    )


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "model.onnx"])
def test_a_name_that_means_another_kind_of_file_is_refused(network, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}, expected a name that ends in \.safetensors; "):
        distnet.save(network, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [lambda network: distnet.Classification(network), lambda _: 3])
def test_what_is_no_network_is_refused(network, tmp_path, make):
    with pytest.raises(
        TypeError, match=r"save: found \w+, expected a Network; .*objective.network"
    ):
        distnet.save(make(network), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_nothing_starts_from_what_is_not_finite(network, tmp_path):
    network.parameters.named()["conv1.weight"][0] = np.nan
    distnet.save(network, tmp_path / "net")
    before = network.parameters.values.copy()
    with pytest.raises(CheckpointError, match=r"found NaN in conv1\.weight, expected numbers"):
        initialize(network, tmp_path / "net")
    np.testing.assert_array_equal(network.parameters.values, before)


def test_there_is_no_optimizer_in_a_model_file(network, tmp_path):
    distnet.save(network, tmp_path / "x")
    assert {name.split(".")[0] for name in checkpoint.load(tmp_path / "x").state} == {
        "params",
        "statistics",
    }


@pytest.fixture
def run_directory(tmp_path, monkeypatch) -> Path:
    data, out = write_digits(tmp_path), tmp_path / "run"
    flags = f"--model simple_convnet --batch-size 50 --epochs 2 --data-dir {data} --out {out}"
    monkeypatch.setattr(sys, "argv", ["train", *flags.split(), "--no-progress"])
    assert train(SerialCommunicator()) == 0
    return out


def test_a_run_is_opened_at_its_best_checkpoint(run_directory):
    found = distnet.load(run_directory)
    best = checkpoint.load(run_directory / "checkpoints" / "best.safetensors")
    for name, array in best.part("params").items():
        np.testing.assert_array_equal(found.parameters.named()[name], array)
    assert found.classes == tuple("0123456789")
    test = distnet.load_dataset(data_dir=run_directory.parent).test
    accuracy = (found.predict(test.inputs).argmax(axis=1) == test.targets).mean()
    summary = json.loads((run_directory / "summary.json").read_text())
    assert accuracy == pytest.approx(summary["best_test_accuracy"])


def test_without_a_best_one_it_is_the_newest(run_directory):
    (run_directory / "checkpoints" / "best.safetensors").unlink()
    (newest,) = sorted((run_directory / "checkpoints").glob("step-*"))[-1:]
    expected = distnet.load(newest).parameters.values
    np.testing.assert_array_equal(distnet.load(run_directory).parameters.values, expected)


def line(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        distnet.load(path)
    assert str(caught.value).isprintable()
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_no_model_has_one_line(network, tmp_path):
    path = tmp_path / "net.safetensors"
    distnet.save(network, path)
    content = path.read_bytes()
    assert "found no file" in line(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "found no checkpoint" in line(tmp_path / "empty")
    path.write_bytes(content[:-1])
    assert "damaged or truncated" in line(path)
    path.write_bytes(content.replace(b'"version":"2"', b'"version":"9"'))
    assert "found checkpoint version '9', expected '2'" in line(path)
    path.write_bytes(b"no model at all")
    assert "truncated, or no safetensors file" in line(path)


def test_a_file_that_does_not_say_what_its_network_is(network, tmp_path):
    values = {f"params.{name}": a for name, a in network.parameters.named().items()}
    checkpoint.save(tmp_path / "x", Checkpoint(0, values))
    assert "expected a file that says what its network is made of" in line(tmp_path / "x")


def test_a_description_of_another_network_is_refused(network, tmp_path):
    distnet.save(network, tmp_path / "x")
    saved = checkpoint.load(tmp_path / "x")
    other = distnet.Network([distnet.Linear(3)], (1, 8, 8))
    distnet.save(other, tmp_path / "y")
    model = checkpoint.load(tmp_path / "y").model
    checkpoint.save(tmp_path / "x", Checkpoint(0, saved.state, model=model))
    assert "found a network of 195 parameters" in line(tmp_path / "x")
