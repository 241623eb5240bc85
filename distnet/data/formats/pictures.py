"""Picture files (PNG, JPEG, ...) as arrays, read by Pillow, which the extra `images` installs.

What is transparent shows white, a picture is turned as its camera says, and of one that moves the
first frame is taken.
"""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.data.errors import DataError, explained
from distnet.data.handwriting import SIDE, as_mnist

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
GREY_MODES = {"1", "F", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L"}
ORIENTATION = 0x0112  # EXIF's tag for how the camera was held
# Of a picture that has come as bytes, from whoever sent it. Cameras make 12 to 25 million.
MOST_SENT_PIXELS = 30_000_000
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none that runs another program

PREPARATIONS = ("plain", "digits", "imagenet")
DIGIT_SHAPE = (1, SIDE, SIDE)  # what is prepared as digits

# A picture: its file, what is in its file, or its pixels, grey (H, W) or in colour (H, W, 3).
Picture = Path | bytes | Array


def read_pictures(
    pictures: Sequence[Picture], input_shape: Shape, *, prepare: str = "plain"
) -> Array:
    """Pictures for a network that reads `input_shape` `(C, H, W)`: bytes `(N, C, H, W)`.

    prepare: "plain" ones are scaled and cropped about the centre to H x W. "digits", dark or light,
    become as MNIST's are, see `handwriting`. "imagenet": scaled so that the shorter side has 8/7 of
    the pixels, 256 for 224, of which the centre is taken, as published networks are evaluated
    (Krizhevsky et al. 2012, section 2). Pixels of digits need no Pillow. Raises DataError.
    """
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise DataError(f"found input shape {input_shape}, expected (1 or 3, H, W) for pictures")
    channels, height, width = input_shape
    if prepare == "digits":
        if input_shape != DIGIT_SHAPE:
            raise DataError(f"found input shape {input_shape}, expected {DIGIT_SHAPE} for digits")
        digits = [as_mnist(_grey(each), _name(each)) for each in pictures]
        return np.array(digits, np.uint8).reshape(-1, *DIGIT_SHAPE)
    fitted = _centre if prepare == "imagenet" else _fitted
    return _stacked(pictures, (width, height), channels == 1, fitted)


def _fitted(picture: Any, size: tuple[int, int]) -> Any:
    """As much of the picture as `size`, (width, height), can show."""
    if picture.size == size:
        return picture
    return _pillow("ImageOps").fit(picture, size, _pillow("Image").Resampling.BILINEAR)


def _centre(picture: Any, size: tuple[int, int]) -> Any:
    """The middle of the picture; numbers of pixels are rounded as torchvision rounds them."""
    shorter, found = max(size) * 8 // 7, min(picture.size)
    scaled = tuple(int(shorter * side / found) for side in picture.size)
    if math.prod(scaled) > MOST_SENT_PIXELS:  # which would not fit into memory
        width, height = picture.size
        raise DataError(
            f"found a picture of {width} x {height} pixels, too long to be scaled to {shorter} at "
            "its shorter side, expected less of it"
        )
    picture = picture.resize(scaled, _pillow("Image").Resampling.BILINEAR)
    left, top = (round((side - wanted) / 2) for side, wanted in zip(scaled, size, strict=True))
    return picture.crop((left, top, left + size[0], top + size[1]))


def _stacked(
    pictures: Sequence[Picture],
    size: tuple[int, int],
    is_grey: bool,
    fitted: Callable[[Any, tuple[int, int]], Any],
) -> Array:
    """Pictures, made to fit that width and height: bytes `(N, C, H, W)`."""
    width, height = size
    images = np.empty((len(pictures), 1 if is_grey else 3, height, width), np.uint8)
    for image, each in zip(images, pictures, strict=True):
        picture = _on_white(each).convert("L" if is_grey else "RGB")
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
def _opened(picture: Path | bytes) -> Iterator[Any]:
    """The picture in a file, to be looked at and read; DataError if either goes wrong."""
    image, name = _pillow("Image"), _name(picture)
    bombs = image.DecompressionBombError, image.DecompressionBombWarning
    with explained(name):
        try:
            source = io.BytesIO(picture) if isinstance(picture, bytes) else picture
            with image.open(source, formats=FORMATS) as opened:
                if isinstance(picture, bytes) and math.prod(opened.size) > MOST_SENT_PIXELS:
                    raise DataError(
                        f"{name}: found {opened.width} x {opened.height} pixels, expected at most "
                        f"{MOST_SENT_PIXELS:,}; make it smaller"
                    )
                yield opened
        except DataError:
            raise
        except image.UnidentifiedImageError:
            known = f"none of {', '.join(FORMATS)}"
            raise DataError(f"{name}: cannot be read (it is {known})") from None
        except (*bombs, SyntaxError, ValueError) as error:
            raise DataError(f"{name}: cannot be read ({error!s:.100})") from None


def _name(picture: Picture) -> str:
    return str(picture) if isinstance(picture, Path) else "the picture"


def _grey(picture: Picture) -> Array:
    if isinstance(picture, np.ndarray) and picture.ndim == 2:
        return picture
    return np.asarray(_on_white(picture).convert("L"))


def _bytes_of_floats(grey: Array, what: str) -> Array:
    """Grey values from 0 to 1, as most programs write floats, or from 0 to 255, as bytes."""
    low, high = float(grey.min()), float(grey.max())  # NaN if there is one
    if not 0 <= low <= high <= 255:
        raise DataError(
            f"{what}: found grey values from {low:.4g} to {high:.4g}, expected 0 to 255"
        )
    known = grey.astype(np.float64)
    return (known if high > 1 else 255 * known).round().astype(np.uint8)


def _bytes_of_integers(grey: Array, has_32_bits: bool, what: str) -> Array:
    """Grey values from 0 to 65535, or in 32 bits to 255, as programs write bytes there."""
    low, high = int(grey.min()), int(grey.max())
    if low < 0 or high > 65535:
        raise DataError(f"{what}: found grey values from {low} to {high}, expected 0 to 65535")
    are_bytes = has_32_bits and high <= 255
    return (grey if are_bytes else grey.astype(np.int64) // 257).astype(np.uint8)


def _on_white(picture: Picture) -> Any:
    """The picture, of 8 bits a channel and without transparency, as Pillow has it."""
    image = _pillow("Image")
    if isinstance(picture, np.ndarray):
        return image.fromarray(picture)
    with _opened(picture) as opened:
        turned = _pillow("ImageOps").exif_transpose(opened)
        if turned.mode.startswith("I"):  # 16 bits, or 32
            has_32_bits = turned.mode == "I" and opened.format == "TIFF"
            grey = _bytes_of_integers(np.asarray(turned), has_32_bits, _name(picture))
            return image.fromarray(grey)
        if turned.mode == "F":
            return image.fromarray(_bytes_of_floats(np.asarray(turned), _name(picture)))
        if turned.mode == "LAB":
            return turned.convert("RGB")  # which Pillow can make grey
        if not turned.has_transparency_data:
            turned.load()
            return turned
        coloured = turned.convert("RGBA")
        white = image.new("RGBA", coloured.size, "white")
        return image.alpha_composite(white, coloured)
