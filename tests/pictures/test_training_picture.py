"""The README's picture is drawn from a run of the training command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from distnet.experiments import load

PATH = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "training.py"
script = load(PATH)


def test_a_run_becomes_a_picture(tmp_path):
    run, picture = tmp_path / "run", tmp_path / "picture.png"
    command = [sys.executable, "-m", "distnet.train", "--steps", "2", "--log-every", "1"]
    subprocess.run([*command, "--out", run], check=True, capture_output=True)
    subprocess.run([sys.executable, PATH, run, "--out", picture], check=True)
    with Image.open(picture) as image:
        assert image.width > 2 * image.height
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


def test_digits_are_shown_from_the_least_certain_on_and_wrong_ones_coloured():
    shown = script.ROWS * script.COLUMNS
    certainty = np.linspace(1.0, 0.6, shown + 1)
    probabilities = np.stack([certainty, 1 - certainty], axis=1)
    images = np.arange(shown + 1).reshape(-1, 1, 1, 1)
    labels = np.zeros(shown + 1, int)
    labels[-1] = 1
    digits = script.least_certain(probabilities, images, labels)
    assert [int(image[0, 0]) for image, _, _ in digits] == list(range(shown, 0, -1))
    assert digits[0][1:] == ("0  60%", script.COLORS[1])
    assert {color for _, _, color in digits[1:]} == {"black"}
