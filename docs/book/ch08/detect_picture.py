"""Finds the digits in a picture of yours with a trained R-CNN or Faster R-CNN.

    python docs/book/ch08/detect_picture.py runs/book/faster_rcnn note.jpg found.png

The picture, dark digits on light paper or the other way round, is scaled to 64 x 84 pixels: digits
should be 12 to 31 pixels high then, about a fifth to a half of its height.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from detecting import load

from distnet.base.arrays import Array
from distnet.experiments.pictures import write_picture
from distnet.experiments.vision import draw_boxes

HEIGHT, WIDTH = 64, 84


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder that an experiment of 8.4.1 wrote")
    parser.add_argument("picture", type=Path, help="a picture file")
    parser.add_argument("out", type=Path, help="the PNG file to be written")
    options = parser.parse_args()
    image = read(options.picture)
    (found,), _ = load(options.model).detect(image[None, None])
    names = [f"{k} {s:.2f}" for k, s in zip(found.labels, found.scores, strict=True)]
    for name, box in zip(names, found.boxes, strict=True):
        print(f"{name} at " + ", ".join(f"{corner:.0f}" for corner in box))
    print(f"wrote {options.out}" if names else f"found nothing; wrote {options.out}")

    def draw(figure) -> None:
        axes = figure.subplots()
        axes.imshow(image, cmap="gray")
        draw_boxes(axes, found.boxes, names)
        axes.set_axis_off()

    write_picture(options.out, draw, (6.3, 4.8))


def read(path: Path) -> Array:
    """The picture as light ink on a dark ground, `(64, 84)` bytes: its middle, scaled."""
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        grey = np.asarray(ImageOps.fit(image.convert("L"), (WIDTH, HEIGHT)))
    if np.median(grey) > 127:
        grey = 255 - grey
    return np.maximum(grey.astype(int) - int(np.median(grey)), 0).astype(np.uint8)


if __name__ == "__main__":
    main()
