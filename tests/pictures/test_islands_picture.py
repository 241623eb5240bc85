"""The picture of docs/scaling.md is drawn from what runs have left."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "islands.py"


def leave(directory, sync, loss):
    directory.mkdir()
    (directory / "summary.json").write_text(json.dumps({"test_loss": loss}))
    (directory / "config.toml").write_text(sync)


def test_draws_a_curve_for_each_number_of_islands(tmp_path):
    pictures = []
    for islands in (1, 4):
        for every in (1, 50):
            local = f'sync = "local"\nislands = {islands}\nsync_every = {every}\n'
            leave(tmp_path / f"{islands}-{every}", local, 0.1 * islands + every / 100)
        picture = tmp_path / "picture.png"
        subprocess.run([sys.executable, SCRIPT, tmp_path, "--out", picture], check=True)
        pictures.append(picture.read_bytes())
    leave(tmp_path / "step", 'sync = "step"\n', 0.3)
    subprocess.run([sys.executable, SCRIPT, tmp_path, "--out", picture], check=True)
    assert len({*pictures, picture.read_bytes()}) == 3
    with Image.open(picture) as image:
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
