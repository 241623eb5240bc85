"""Draws a digit on the page of `distnet serve`, and takes a picture of it, light and dark.

pip install -e '.[browser]'  # and Chromium, as your system packages it
python docs/pictures/serve.py RUN --out docs/pictures/serve.png
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

import distnet
from distnet.serving.page import page
from distnet.serving.reader import Reader
from distnet.serving.server import Server

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
VIEW = {"width": 1000, "height": 640}
PATIENCE_MS = 120_000
THREE = [(80, 75), (135, 40), (190, 70), (190, 110), (130, 135), (195, 165), (195, 215), (130, 240)]
THREE += [(75, 210)]


def pictures(reader: Reader, name: str, browser: str) -> list[Image.Image]:
    """The page with a digit on it, in light and in dark."""
    html, policy = page(reader, name, "/layers")
    server = Server("127.0.0.1", 0, html, policy, {"/layers": reader.layers})
    with server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever).start()
        chromium = playwright.chromium.launch(
            executable_path=browser, args=FLAGS, timeout=PATIENCE_MS
        )
        taken = []
        for scheme in ("light", "dark"):
            window = chromium.new_page(viewport=VIEW, color_scheme=scheme)
            window.set_default_timeout(PATIENCE_MS)
            window.goto(f"http://127.0.0.1:{server.server_port}/")
            box = window.locator("#sheet").bounding_box()
            scale = box["width"] / 280
            places = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in THREE]
            window.mouse.move(*places[0])
            window.mouse.down()
            for place in places[1:]:
                window.mouse.move(*place, steps=4)
            window.mouse.up()
            window.wait_for_load_state("networkidle")
            taken.append(Image.open(io.BytesIO(window.screenshot())))
        chromium.close()
        server.shutdown()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/serve.png"))
    parser.add_argument("--browser", default=shutil.which("chromium") or "chromium")
    options = parser.parse_args()
    reader = Reader(distnet.load(options.model), "digits")
    light, dark = (
        np.asarray(each.convert("RGB"))
        for each in pictures(reader, "deep_convnet", options.browser)
    )
    gap = np.full((light.shape[0], 12, 3), 255, np.uint8)
    whole = Image.fromarray(np.concatenate([light, gap, dark], axis=1))
    whole.quantize(64).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
