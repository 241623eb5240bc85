"""What counts as images: the one door through which arrays of a user come in.

Pixels follow one rule everywhere. Bytes (uint8) mean 0 to 1, so the network reads them divided by
255; true and false are black and white; floats are taken as they are; other integers are refused,
because 0 to 255, 0 to 65535 and 0 to 1 would all be possible. Called by `fit`, `predict` and
`evaluate`, and by what makes data sets of arrays.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from distnet.base.arrays import Array, Shape, StoredArray
from distnet.base.errors import DataError

PIECE_BYTES = 1 << 22  # of floats that are searched for NaN at a time
LARGEST = float(np.finfo(np.float32).max)  # beyond it there are infinities
LARGEST_USUAL = 100  # of floats that were scaled or standardized


def checked_images(images: object, input_shape: Shape, what: str = "images") -> Array:
    """`images` as uint8 or floats `(N, *input_shape)`, without a copy where that is possible.

    Beside that shape, images of one channel may lack it, `(N, H, W)`, and channels may come last,
    `(N, H, W, C)`. `what` names the images in an error. Raises DataError for other shapes, for
    integers other than uint8, for NaN and infinities and for an empty array.
    """
    array = pixels(images, what)
    found = array.shape[1:]
    if found != input_shape and len(input_shape) == 3:
        c, h, w = input_shape
        if found == (h, w) and c == 1:
            array = array.reshape(len(array), 1, h, w)
        elif found == (h, w, c):
            array = array.transpose(0, 3, 1, 2)
    if array.shape[1:] != input_shape:
        raise DataError(
            f"{what}: found shape {array.shape}, expected {_shape(('N', *input_shape))}"
            f"{_shape_hint(array.shape, input_shape)}"
        )
    check_finite(array, what)
    return array


def pixels(images: object, what: str = "images") -> Array:
    """`images`, an array or what NumPy makes one of, as uint8 or floats of the same shape."""
    array = as_array(images, what)
    if array.dtype == np.bool_:
        array = np.where(array[:], np.uint8(255), np.uint8(0))
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise DataError(
            f"{what}: found {array.dtype}, expected uint8 (0 to 255, read as 0 to 1) or floats; "
            "images.astype('uint8') if they are bytes, otherwise divide by their largest value"
        )
    if 0 in array.shape:
        raise DataError(f"{what}: found an empty array {array.shape}, expected samples")
    return array


def check_finite(images: Array, what: str = "images") -> None:
    """Raises DataError that names the first image with what float32 has no finite number for."""
    if images.dtype.kind != "f":
        return
    rows = max(1, PIECE_BYTES * len(images) // images.nbytes)
    for start in range(0, len(images), rows):
        piece = images[start : start + rows]
        finite = np.isfinite(piece)
        if piece.dtype.itemsize > 4:
            finite &= np.abs(piece) <= LARGEST
        if not finite.all():
            number = start + int((~finite).reshape(len(finite), -1).any(axis=1).argmax())
            value = _not_finite(images[number])
            raise DataError(f"{what}: the data hold {value} in image {number}, counted from 0")


def _not_finite(image: Array) -> str:
    if np.isnan(image).any():
        return "NaN"
    if np.isinf(image).any():
        return "an infinite number"
    return f"{np.abs(image).max():.3g}, more than float32 has,"


def large_floats_hint(images: Array) -> str:
    """One line if the images are floats that look like bytes, "" if not."""
    if images.dtype.kind != "f":
        return ""
    first = images[:100]
    lowest, highest = float(first.min()), float(first.max())
    if max(highest, -lowest) <= LARGEST_USUAL:
        return ""
    if images.ndim == 2 and not 0 <= lowest <= highest <= 255:  # rows may be of anything
        return ""
    return (
        f"images are floats up to {highest:.4g} and taken as they are, while bytes mean 0 to 1; "
        "divide by 255 if they are grey values"
    )


def channels_last_hint(shape: Shape) -> str:
    """One line if the shape of an image, (C, H, W), looks like (H, W, C), "" if not."""
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape[:2]) <= shape[2]:
        return ""
    h, w, c = shape
    if h != w and c == 1:  # may be a series of w numbers in h channels
        return ""
    return (
        f"{_shape(shape)} means {h} channels of {w} x {c} pixels; channels come first, "
        f"{_shape((c, h, w))} if the images are {h} x {w} pixels"
    )


def as_array(values: object, what: str) -> Array:
    """`values` as an array, not copied if it is one, in memory or in a file; or DataError."""
    if isinstance(values, StoredArray):
        return cast(Array, values)
    if type(values) is not np.ndarray and np.ma.is_masked(values):  # of numpy.ma, which takes 10 ms
        missing = np.ma.count_masked(cast(Array, values))
        raise DataError(f"{what}: found a masked array that lacks {missing} values, expected all")
    try:
        return np.asarray(values)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{what}: found no array ({reason:.200}), expected one") from None


def _shape(sizes: tuple[object, ...]) -> str:
    return f"({', '.join(map(str, sizes))})"


def _shape_hint(found: Shape, input_shape: Shape) -> str:
    """What to do about a wrong shape, where that can be told."""
    if found in (input_shape, input_shape[1:], input_shape[1:] + input_shape[:1]):
        return "; a single image is images[None]"
    if math.prod(found[1:]) == math.prod(input_shape):
        hint = channels_last_hint(input_shape)
        order = f"images.reshape{_shape((-1, *input_shape))} if the order of the numbers is that"
        return f"; input_shape {hint}" if hint else f"; {order}"
    return ""
