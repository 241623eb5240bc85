"""What counts as labels, and as images with labels; what counts as images is in `base.images`.

Called by `fit` and `evaluate`, and by `own`, which makes data sets of arrays.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arrays import Array, Shape, StoredArray
from distnet.base.images import as_array, checked_images
from distnet.base.words import counted
from distnet.data.dataset import Samples
from distnet.data.errors import DataError

CHANNELS = (1, 3)  # grey, and red, green, blue


def checked_samples(
    images: object, labels: object, input_shape: Shape, num_classes: int
) -> Samples:
    """Images and labels for a network of that input shape and number of classes.

    The rules are those of `checked_images` and `checked_labels`; there has to be a label for each
    image. Raises DataError, one line, for everything else.
    """
    inputs, targets = checked_images(images, input_shape), checked_labels(labels, num_classes)
    check_same_length(inputs, targets)
    return Samples(inputs, targets)


def checked_labels(labels: object, num_classes: int) -> Array:
    """`labels` as integers `(N,)` from 0 to `num_classes` - 1.

    Takes integers, booleans (0 and 1), lists, columns `(N, 1)` and rows with a single 1 for each
    sample `(N, num_classes)`. Raises DataError for everything else.
    """
    values = label_values(labels)
    if values.dtype.kind in "U":
        raise DataError(f"labels: found text such as '{values[0]}', expected whole numbers{_HINT}")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise DataError(
            f"labels: found {wrong}, expected 0 to {num_classes - 1} for "
            f"{counted(num_classes, 'class', 'classes')}"
            f"{_HINT}"
        )
    return values


_HINT = "; a data set made of the arrays maps labels of any kind"


def channels_first(images: Array, layout: str | None = None, what: str = "images") -> Array:
    """Images `(N, C, H, W)` from those of shape `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)`.

    Rows of numbers `(N, D)` stay as they are. `layout` is "NCHW" or "NHWC" where the shape does
    not tell; without it there have to be 1 or 3 channels. Raises DataError for other shapes.
    """
    if images.ndim == 2:
        return images
    if images.ndim == 3:
        n, h, w = images.shape
        return images.reshape(n, 1, h, w)
    if layout not in (None, "NCHW", "NHWC"):
        raise DataError(f'{what}: found layout {layout!r:.60}, expected "NCHW" or "NHWC"')
    if images.ndim != 4:
        raise DataError(
            f"{what}: found shape {images.shape}, expected (N, H, W), (N, C, H, W), (N, H, W, C), "
            "or rows of numbers, (N, D)"
        )
    first, last = images.shape[1] in CHANNELS, images.shape[3] in CHANNELS
    if layout is None and first == last:
        why = "both could be" if first else "neither is"
        raise DataError(
            f"{what}: found shape {images.shape}, expected 1 or 3 channels in the second or in the "
            f'last place, and {why}; say layout="NCHW" or "NHWC"'
        )
    return images.transpose(0, 3, 1, 2) if layout == "NHWC" or (layout is None and last) else images


def check_same_length(images: Array, labels: Array, what: str = "labels") -> None:
    """Raises DataError unless there is a label for each image."""
    if len(images) != len(labels):
        raise DataError(f"{what}: found {len(labels)}, expected {len(images)}, one for each image")


def label_values(labels: object, what: str = "labels") -> Array:
    """`labels` as integers or text `(N,)`: columns are flattened, rows with a single 1 counted.

    Raises DataError for floats, missing values, other shapes and an empty array.
    """
    array = as_array(labels, what)
    if isinstance(array, StoredArray):
        array = array[:]  # labels are needed all at once, also those of a large file
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf" and array.size:
        return _places_of_ones(array, what)
    expect_one_kind(labels, array, what)
    if array.dtype.kind in "OT" and array.ndim == 1 and array.size:
        array = _of_one_kind(array.astype(object), what)
    if array.dtype.kind not in "biuUS" or array.ndim != 1:
        raise DataError(
            f"{what}: found {array.dtype} of shape {array.shape}, expected (N,) whole numbers, "
            f"text or booleans, or (N, classes) with a single 1 in each row{_float_hint(array)}"
        )
    if not len(array):
        raise DataError(f"{what}: found none, expected one for each image")
    if array.dtype.kind == "S":
        return _decoded(array, what)
    return array.astype(_integer_type(array), copy=False)


def _integer_type(array: Array) -> np.dtype[np.generic]:
    return np.dtype(np.uint8) if array.dtype == np.bool_ else array.dtype


def _decoded(array: Array, what: str) -> Array:
    """Bytes as text. Nothing is replaced, or two labels could become one."""
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{what}: found text {error.object!r:.40}, expected it in UTF-8") from None


def _places_of_ones(rows: Array, what: str) -> Array:
    """Where the 1 is in each row of `(N, classes)`."""
    right = (np.count_nonzero(rows, axis=1) == 1) & (rows.max(axis=1) == 1)
    if not right.all():
        number = int((~right).argmax())
        raise DataError(
            f"{what}: found rows of {rows.shape[1]} numbers, expected a single 1 and else 0 in "
            f"each, but row {number} is {np.array2string(rows[number], threshold=8)!s:.80}"
        )
    return rows.argmax(axis=1)


def expect_one_kind(labels: object, array: Array, what: str) -> None:
    """Raises DataError if `array` is text in which NumPy wrote what was none in a list `labels`."""
    if array.dtype.kind == "U" and array.ndim == 1 and not hasattr(labels, "dtype"):
        _of_one_kind(np.array(labels, object), what)


def _of_one_kind(array: Array, what: str) -> Array:
    """An array of Python objects as one of text or of whole numbers."""
    kinds: tuple[tuple[type, ...], ...] = ((str,), (bool, np.bool_), (int, np.integer))
    kind = next((kind for kind in kinds if isinstance(array.flat[0], kind)), ())
    for number, value in enumerate(array.flat):
        if not isinstance(value, kind):
            raise DataError(
                f"{what}: found {value!r:.40} at place {number}, expected text throughout or whole "
                "numbers throughout"
            )
    return np.array(array.tolist())


def _float_hint(array: Array) -> str:
    return "; labels.astype(int) if they are whole numbers" if array.dtype.kind == "f" else ""
