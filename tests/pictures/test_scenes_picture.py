"""The picture of docs/data.md shows scenes of every kind."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from distnet.experiments.vision import DIGIT_COLOURS, ROAD_COLOURS

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "scenes.py"


def test_scenes_with_boxes_and_masks(tmp_path):
    picture = tmp_path / "scenes.png"
    command = [sys.executable, SCRIPT, "--out", picture]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert [line.split(":")[0] for line in told.splitlines()] == ["digits", "captions", "roads"]
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for colour in (*DIGIT_COLOURS[[0, 2]], *ROAD_COLOURS):  # the palette may be a little off
        assert (abs(pixels - colour).max(axis=1) <= 8).sum() > 20, colour
