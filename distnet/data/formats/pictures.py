"""Picture files (PNG, JPEG, ...) as arrays, read by Pillow, which the extra `images` installs.

What is transparent shows white, and a picture is turned as its camera says.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.data.errors import DataError, explained

SUFFIXES = {
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pbm",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
ORIENTATION = 0x0112  # EXIF's tag for how the camera was held
DIGIT_BOX = 20  # pixels that the larger side of a digit takes in MNIST's 28
CENTRE = 14  # the row and column, from 0, of the centre of mass in MNIST's images
FAINT = 30  # of 255: fainter ink does not count for where a digit begins


PREPARATIONS = ("plain", "digits", "imagenet")


def read_pictures(paths: Sequence[Path], input_shape: Shape, *, prepare: str = "plain") -> Array:
    """Picture files for a network that reads `input_shape` `(C, H, W)`: bytes `(N, C, H, W)`.

    prepare: "plain" ones are scaled and cropped about the centre to H x W. "digits", dark or light,
    on paper of any brightness and anywhere on it, become light on black, 20 pixels in their larger
    side and with their centre of mass in the middle, as MNIST's page describes. "imagenet": scaled
    so that the shorter side has 8/7 of the pixels, 256 for 224, of which the centre is taken, as
    published networks are evaluated (Krizhevsky et al. 2012, section 2). Raises DataError.
    """
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise DataError(f"found input shape {input_shape}, expected (1 or 3, H, W) for pictures")
    channels, height, width = input_shape
    if prepare == "digits" and input_shape == (1, 28, 28):
        return np.stack([_digit(path) for path in paths])[:, None]
    fitted = _centre if prepare == "imagenet" else _fitted
    return stacked_pictures(paths, (width, height), channels == 1, fitted)


def _fitted(picture: Any, size: tuple[int, int]) -> Any:
    """As much of the picture as `size`, (width, height), can show."""
    if picture.size == size:
        return picture
    return _pillow("ImageOps").fit(picture, size, _pillow("Image").Resampling.BILINEAR)


def _centre(picture: Any, size: tuple[int, int]) -> Any:
    """The middle of the picture; numbers of pixels are rounded as torchvision rounds them."""
    shorter, found = max(size) * 8 // 7, min(picture.size)
    scaled = tuple(int(shorter * side / found) for side in picture.size)
    picture = picture.resize(scaled, _pillow("Image").Resampling.BILINEAR)
    left, top = (round((side - wanted) / 2) for side, wanted in zip(scaled, size, strict=True))
    return picture.crop((left, top, left + size[0], top + size[1]))


def stacked_pictures(
    paths: Sequence[Path],
    size: tuple[int, int],
    is_grey: bool,
    fitted: Callable[[Any, tuple[int, int]], Any] = _fitted,
) -> Array:
    """Pictures, made to fit that width and height: bytes `(N, C, H, W)`."""
    width, height = size
    images = np.empty((len(paths), 1 if is_grey else 3, height, width), np.uint8)
    for image, path in zip(images, paths, strict=True):
        picture = _on_white(path).convert("L" if is_grey else "RGB")
        pixels = np.asarray(fitted(picture, size))
        image[:] = pixels[None] if is_grey else pixels.transpose(2, 0, 1)
    return images


def header(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height, and whether it is grey; the pixels are not read."""
    with _opened(path) as picture:
        turned = picture.getexif().get(ORIENTATION, 1) >= 5  # by 90 degrees, or mirrored as well
        return picture.size[::-1] if turned else picture.size, picture.mode in GREY_MODES


def _pillow(name: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{name}")
    except ImportError:
        raise DataError(
            "found no Pillow, expected it to read pictures: pip install 'distnet-mpi[images]'"
        ) from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The picture in a file, to be looked at and read; DataError if either goes wrong."""
    image = _pillow("Image")
    with explained(path):
        try:
            with image.open(path) as picture:
                yield picture
        except (image.DecompressionBombError, SyntaxError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error!s:.100})") from None


def _on_white(path: Path) -> Any:
    """The picture in a file, of 8 bits a channel and without transparency."""
    image = _pillow("Image")
    with _opened(path) as opened:
        picture = _pillow("ImageOps").exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16 bits
            grey = np.asarray(picture).astype(np.int64) // 257
            return image.fromarray(grey.clip(0, 255).astype(np.uint8))
        if not picture.has_transparency_data:
            picture.load()
            return picture
        picture = picture.convert("RGBA")
        white = image.new("RGBA", picture.size, "white")
        return image.alpha_composite(white, picture)


def _digit(path: Path) -> Array:
    """A handwritten digit as MNIST has it: bytes `(28, 28)`, light on black."""
    ink = _ink(np.asarray(_on_white(path).convert("L")).astype(np.int64))
    if ink.shape == (28, 28):
        return ink.astype(np.uint8)
    rows, columns = np.nonzero(ink.max(axis=1) > FAINT)[0], np.nonzero(ink.max(axis=0) > FAINT)[0]
    if not len(rows):
        raise DataError(f"{path}: found an empty picture, expected a digit")
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    scale = DIGIT_BOX / max(box.shape)
    height, width = (max(1, round(side * scale)) for side in box.shape)
    image = _pillow("Image")
    small = np.asarray(image.fromarray(box).resize((width, height), image.Resampling.BOX))
    return _centred(small)


def _ink(grey: Array) -> Array:
    """How much each pixel differs from the paper, which is what most of the border shows: 0-255."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = int(np.median(border))
    ink = (grey - paper if paper < 128 else paper - grey).clip(0)
    return ink * 255 // max(1, int(ink.max()))


def _centred(digit: Array) -> Array:
    """`digit` on 28 x 28 black pixels, its centre of mass in the middle."""
    canvas = np.zeros((28, 28), np.uint8)
    weights = digit.astype(np.float64)
    places = []
    for axis, side in enumerate(digit.shape):
        mass = weights.sum(axis=1 - axis)
        centre = (mass * np.arange(side)).sum() / mass.sum()
        places.append(int(np.clip(round(CENTRE - centre), 0, 28 - side)))
    top, left = places
    canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit
    return canvas
