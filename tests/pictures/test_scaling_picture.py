"""The picture of docs/log.md is drawn from the JSON that `bench scaling` writes."""

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "scaling.py"


def result(batch_size, **more):
    rows = [{"ranks": n, "images_per_second": 4000.0 * n, "of_copies": 0.9} | more for n in (1, 2)]
    return {"options": {"model": "deep_convnet", "batch_size": batch_size}, "rows": rows}


def test_draws_a_panel_for_each_file(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(result(256, of_ddp=1.5, ddp_images_per_second=2000.0)))
    two.write_text(json.dumps(result(100)))
    sizes = []
    for files in ([one], [one, two]):
        picture = tmp_path / "picture.png"
        subprocess.run([sys.executable, SCRIPT, *files, "--out", picture], check=True)
        with Image.open(picture) as image:
            sizes.append(image.size)
            assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert sizes[1][0] > sizes[0][0]
