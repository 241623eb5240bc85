"""The training command on data of one's own: what is read, how it is called, what is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import launching
import numpy as np
import pytest
from training_runs import ALONE, read_summary, succeed, train

import distnet
from distnet.predict import main as predict

pytestmark = pytest.mark.mpi_launch

RNG = np.random.Generator(np.random.Philox(key=13))
COLOUR = RNG.integers(0, 256, (60, 12, 12, 3), np.uint8)
KINDS = np.where(np.arange(60) % 3 == 0, "big", "small")
RUN = ("--model", "two_layer", "--steps", "4", "--batch-size", "10", "--no-progress")


def save(directory: Path, name: str, **arrays: np.ndarray) -> Path:
    np.savez(directory / f"{name}.npz", **arrays)
    return directory / f"{name}.npz"


def test_pictures_in_colour_and_text_for_labels(tmp_path):
    path = save(tmp_path, "mine", x=COLOUR, y=KINDS)
    command = [sys.executable, "-m", "distnet.train", *RUN, "--data-dir", str(path)]
    environ = {**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"]}
    shown = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    ).stdout
    assert "mine: labels big, small are classes 0 to 1, in this order" in shown
    assert "mine: there are no test data: 10 of 60 samples are held out for the test" in shown
    out = tmp_path / "runs" / "two_layer-mine-seed0"
    assert read_summary(out)["data"] == "mine"


@pytest.mark.parametrize("kind", ["float32", "rows"])
def test_floats_and_rows_of_numbers(tmp_path, kind):
    images = (COLOUR / 255).astype(np.float32)
    images = images.reshape(60, -1) if kind == "rows" else images
    path = save(tmp_path, "mine", x=images, y=KINDS, x_test=images, y_test=KINDS)
    succeed(ALONE, *RUN, "--data-dir", path, "--out", tmp_path / "out")


COLOURS = ("--augment-shift", "2", "--augment-flip", "--augment-brightness", "0.3")


def test_augmented_colours_have_the_same_bits_on_ranks(tmp_path):
    path = save(tmp_path, "mine", x=COLOUR, y=KINDS)
    hashes = set()
    for ranks, flags in ((ALONE, COLOURS), (3, COLOURS), (ALONE, ())):
        out = tmp_path / f"out{len(hashes)}{ranks}"
        cutout = ("--augment-cutout", "4", "--augment-rotation", "15") if flags else ()
        small = ("--micro-batch-size", "4", "--data-dir", path, "--out", out)
        succeed(ranks, *RUN, *flags, *cutout, *small)
        hashes.add(read_summary(out)["params_sha256"])
    assert len(hashes) == 2  # with augmentation and without


@pytest.mark.parametrize(
    ("arrays", "flags", "message"),
    [
        ({"x": COLOUR}, (), "found x, expected train_images and train_labels"),
        ({"x": COLOUR, "y": KINDS[:5]}, (), "(y): found 5, expected 60, one for each image"),
        ({"x": COLOUR / np.nan, "y": KINDS}, (), "(x): the data hold NaN in image 0"),
        ({"x": COLOUR.astype(int), "y": KINDS}, (), "(x): found int64, expected uint8"),
        ({"x": COLOUR, "y": np.arange(60) / 7}, (), "(y): found float64 of shape (60,)"),
        ({"x": COLOUR, "y": KINDS[:1].repeat(60)}, (), "found one class, "),
        ({"x": COLOUR, "y": KINDS}, ("--augment-shift", "13"), "--augment-shift: found 13, expec"),
        ({"x": COLOUR, "y": KINDS}, ("--augment-cutout", "13"), "--augment-cutout: found 13, ex"),
        ({"x": RNG.random((60, 5)), "y": KINDS}, ("--augment-flip",), "found inputs of shape (5,)"),
        ({"x": RNG.random((60, 5)), "y": KINDS}, ("--augment-scale", "0.1"), "found inputs of sha"),
    ],
    ids=lambda value: ascii(value)[-30:],
)
def test_what_cannot_be_trained_on_is_one_line(tmp_path, arrays, flags, message):
    path = save(tmp_path, "mine", **arrays)
    process = train(ALONE, *RUN, *flags, "--data-dir", path, "--out", tmp_path / "out")
    assert process.returncode == 2
    assert process.stderr.startswith("distnet: error: ") and process.stderr.count("\n") == 1
    assert message in process.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_are_predicted_as_they_were_trained_on(tmp_path, capsys):
    """Whatever the name of their folder: "mnist" alone would say that they are light on black."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    pixels = RNG.integers(0, 256, (12, 28, 28), np.uint8)
    for number, each in enumerate(pixels):
        path = tmp_path / "mnist_mine" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(each).save(path)
    succeed(ALONE, *RUN, "--data-dir", path.parents[1], "--out", tmp_path / "out")
    network = distnet.load(tmp_path / "out")
    files = [str(tmp_path / "mnist_mine" / str(n % 2) / f"{n}.png") for n in range(12)]
    assert predict([str(tmp_path / "out"), *files, "--json"]) == 0
    told = [entry["probabilities"]["1"] for entry in json.loads(capsys.readouterr().out)]
    expected = distnet.softmax(network.predict(pixels[:, None]))[:, 1]
    np.testing.assert_allclose(told, expected, rtol=1e-6)


SCRIPT = """
import sys
from typing import Annotated

import distnet
from distnet.base.options import Option
from distnet.train import main

Units = Annotated[int, Option("units of the hidden layer", metavar="N", limits={">=": 1})]


def mine(input_shape, num_classes, *, units: Units = 8, seed=0, dtype="float32"):
    layers = [distnet.Linear(units), distnet.ReLU(), distnet.Linear(num_classes)]
    return distnet.Network(layers, input_shape, seed=seed, dtype=dtype)


distnet.MODELS["mine"] = mine  # although the command is imported
sys.exit(main(sys.argv[1:]))
"""


def test_a_model_of_a_script_has_flags_and_its_run_opens_in_any_directory(tmp_path):
    def run(directory: Path, *command: str) -> str:
        environ = {**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"]}
        full = [sys.executable, *command]
        return subprocess.run(
            full, cwd=directory, env=environ, capture_output=True, text=True, check=True
        ).stdout

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (tmp_path / "script.py").write_text(SCRIPT)
    save(here, "pets", x=COLOUR, y=KINDS, x_test=COLOUR, y_test=KINDS)
    flags = "--model mine --units 5 --data-dir pets.npz --steps 4 --batch-size 10 --out out"
    run(here, "../script.py", *flags.split(), "--stop-at", "4")
    config = ("--config", "../here/out/config.toml")
    assert "this run is finished" in run(there, "../script.py", *config, "--resume")
    told = run(there, "-m", "distnet", "evaluate", "../here/out")
    assert "on pets, test, 60 samples" in told


HELD_BY_NO_FILE = """
import sys

import numpy as np

import distnet
from distnet.train import main


class Shift(distnet.ReLU):
    def __init__(self, offsets):
        super().__init__()
        self.offsets = offsets


def mine(input_shape, num_classes, *, seed=0, dtype="float32"):
    layers = [Shift(np.ones(3)), distnet.Linear(num_classes)]
    return distnet.Network(layers, input_shape, seed=seed, dtype=dtype)


distnet.MODELS["mine"] = mine
sys.exit(main(sys.argv[1:]))
"""


def test_a_layer_that_no_file_can_hold_is_one_line(tmp_path):
    (tmp_path / "script.py").write_text(HELD_BY_NO_FILE)
    command = [sys.executable, "script.py", "--model", "mine", "--data", "shapes", "--out", "out"]
    environ = {**os.environ, "PYTHONPATH": launching.SETTINGS["PYTHONPATH"]}
    ended = launching.run(command, cwd=tmp_path, env=environ)
    assert ended.returncode == 2
    assert ended.stderr.startswith("distnet: error: Shift: found an argument of type ndarray")
    assert ended.stderr.count("\n") == 1
