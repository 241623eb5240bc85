"""The picture of the page of `distnet serve`: a digit is drawn in a browser, light and dark."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageStat

import distnet

pytest.importorskip("playwright", reason="drives a browser by the extra `browser`")
CHROMIUM = shutil.which("chromium")
SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "serve.py"


@pytest.mark.skipif(CHROMIUM is None, reason="found no chromium on PATH")
def test_the_page_twice(tmp_path):
    network = distnet.Network([distnet.Linear(10)], (1, 28, 28))
    model, picture = tmp_path / "model.safetensors", tmp_path / "picture.png"
    distnet.save(network, model, classes=tuple("0123456789"))
    subprocess.run([sys.executable, SCRIPT, model, "--out", picture], check=True)
    with Image.open(picture) as image:
        assert image.size == (2012, 640)
        grey = image.convert("L")
    light, dark = (ImageStat.Stat(grey.crop((x, 0, x + 1000, 640))).mean[0] for x in (0, 1012))
    assert light > 200 and dark < 70
