"""Colours a picture of yours by what a trained network takes every pixel for.

    python docs/book/ch08/segment_picture.py runs/book/fcn_road.safetensors photo.jpg masks.png

writes the picture, scaled to the size that the network reads, beside its classes, both enlarged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import distnet
from distnet.base.arrays import Array, Shape
from distnet.experiments.vision import DIGIT_COLOURS, ROAD_COLOURS

ENLARGED = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="file that an experiment of section 8.4.2 wrote")
    parser.add_argument("picture", type=Path, help="a picture file")
    parser.add_argument("out", type=Path, help="the PNG file to be written")
    options = parser.parse_args()
    network = distnet.load(options.model)
    pixels = read(options.picture, network.input_shape)
    classes = network.predict(pixels[None])[0].argmax(axis=0)  # (H, W)
    write(options.out, pixels, classes, ROAD_COLOURS if len(pixels) == 3 else DIGIT_COLOURS)
    for name, part in zip(network.classes, parts(classes, len(network.classes)), strict=True):
        print(f"{name:10} {part:6.1%} of the pixels")
    print(f"wrote {options.out}")


def read(path: Path, shape: Shape) -> Array:
    """The picture as bytes `(C, H, W)`: its middle, scaled."""
    from PIL import Image, ImageOps

    c, h, w = shape
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("L" if c == 1 else "RGB"), (w, h))
    return np.asarray(fitted).reshape(h, w, c).transpose(2, 0, 1).copy()


def parts(classes: Array, num_classes: int) -> Array:
    """The part of the pixels that is of each class."""
    return np.bincount(classes.ravel(), minlength=num_classes) / classes.size


def write(path: Path, pixels: Array, classes: Array, colours: Array) -> None:
    from PIL import Image

    as_colours = np.broadcast_to(pixels.transpose(1, 2, 0), (*classes.shape, 3))
    both = np.concatenate([as_colours, colours[classes]], axis=1)
    h, w, _ = both.shape
    image = Image.fromarray(both.astype(np.uint8))
    image.resize((ENLARGED * w, ENLARGED * h), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    main()
