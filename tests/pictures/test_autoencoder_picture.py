"""The picture of docs/tutorial-objective.md is drawn from the network that the page saves."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

import distnet

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "autoencoder.py"


def test_digits_above_reconstructions(tmp_path):
    network = distnet.Network([distnet.Linear(784)], (1, 28, 28))
    model, picture = tmp_path / "model.safetensors", tmp_path / "picture.png"
    distnet.save(network, model)
    subprocess.run([sys.executable, SCRIPT, model, "--out", picture], check=True)
    with Image.open(picture) as image:
        assert image.width > 4 * image.height
        grey = image.convert("L")
        above, below = (grey.crop((0, top, image.width, top + 80)) for top in (0, 85))
        assert above.tobytes() != below.tobytes()
