"""Colours a picture of yours by what a trained network takes every pixel for.

    python docs/book/ch08/segment_picture.py runs/book/fcn_road.safetensors photo.jpg masks.png

writes the picture, scaled to the size that the network reads, beside its classes, both enlarged.
A network that reads grey pictures has learned digits: they may be dark on light paper.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments.applying import PictureOptions, apply, digits, named, picture
from distnet.experiments.vision import DIGIT_COLOURS, ROAD_COLOURS, colours_of
from distnet.nn import Network

ENLARGED = 6


def use(options: PictureOptions) -> None:
    expected = "one with a class for each pixel, of section 8.4.2 or 8.5.3"
    network = named(options.model, sees_pixels, expected)
    read = digits if network.input_shape[0] == 1 else picture
    pixels = read(options.picture, network.input_shape)
    classes = network.predict(pixels[None])[0].argmax(axis=0)  # (H, W)
    known = ROAD_COLOURS if len(pixels) == 3 else DIGIT_COLOURS
    write(options.out, pixels, classes, colours_of(len(network.classes), known))
    for name, part in zip(network.classes, parts(classes, len(network.classes)), strict=True):
        print(f"{name:10} {part:6.1%} of the pixels")
    print(f"wrote {options.out}")


def sees_pixels(network: Network) -> bool:
    """Whether it reads images `(C, H, W)` and answers with scores `(K, H, W)`."""
    return len(network.input_shape) == 3 and network.output_shape[1:] == network.input_shape[1:]


def parts(classes: Array, num_classes: int) -> Array:
    """The part of the pixels that is of each class."""
    return np.bincount(classes.ravel(), minlength=num_classes) / classes.size


def write(path: str, pixels: Array, classes: Array, colours: Array) -> None:
    from PIL import Image

    as_colours = np.broadcast_to(pixels.transpose(1, 2, 0), (*classes.shape, 3))
    both = np.concatenate([as_colours, colours[classes]], axis=1)
    h, w, _ = both.shape
    image = Image.fromarray(both.astype(np.uint8))
    image.resize((ENLARGED * w, ENLARGED * h), Image.Resampling.NEAREST).save(path)


if __name__ == "__main__":
    apply(__file__, use)
