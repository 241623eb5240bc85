"""Data sets of one's own: arrays in memory, with labels of any kind, become a `Dataset`."""

from __future__ import annotations

from collections.abc import Sequence

from distnet.base.arrays import Array
from distnet.base.images import check_finite, large_floats_hint, pixels
from distnet.data.arrays import (
    channels_first,
    check_same_length,
)
from distnet.data.classes import mapped_labels
from distnet.data.dataset import NO_TEST, Dataset, Samples
from distnet.data.errors import DataError


def dataset_from_arrays(
    train_images: object,
    train_labels: object,
    test_images: object = None,
    test_labels: object = None,
    *,
    name: str = "arrays",
    classes: Sequence[str] | None = None,
    layout: str | None = None,
) -> Dataset:
    """A data set of arrays, or of what NumPy makes arrays of; large memory maps are not copied.

    Images are `(N, H, W)`, `(N, C, H, W)` or `(N, H, W, C)` with 1 or 3 channels, or `(N, D)` rows
    of numbers; `layout`, "NCHW" or "NHWC", says which where the shape does not tell or there are
    more channels. Bytes (uint8) mean 0 to 1 and floats are taken as they are (`arrays`). Labels
    are integers, booleans, text or rows with a single 1, one for each image, and become 0 to K - 1;
    `classes` gives them names (`classes.mapped_labels`). Without test data the test set is empty.

    `Dataset.notes` says in a line each what was done to the labels and what looks unusual. Raises
    DataError, one line: what was found, what was expected.
    """
    if (test_images is None) != (test_labels is None):
        raise DataError("found test images without test labels or the reverse, expected both")
    arrays = [train_images, train_labels]
    if test_images is not None:
        arrays += [test_images, test_labels]
    return assembled(name, arrays, classes=classes, layout=layout)


NAMES = ("train_images", "train_labels", "test_images", "test_labels")


def assembled(
    name: str,
    arrays: Sequence[object],
    sources: Sequence[str] = NAMES,
    *,
    classes: Sequence[str] | None = None,
    layout: str | None = None,
) -> Dataset:
    """A data set of training images and labels and, it may be, images and labels for the test.

    `sources` says where each of them comes from, such as a path, and is named in errors.
    """
    images = [
        _images(part, layout, source)
        for part, source in zip(arrays[::2], sources[::2], strict=False)
    ]
    labels, names, notes = mapped_labels(arrays[1::2], classes, sources[1::2])
    for part, label, source in zip(images, labels, sources[1::2], strict=False):
        check_same_length(part, label, source)
    if len(images) == 1:
        images.append(images[0][:0])
        labels.append(labels[0][:0])
        notes += (NO_TEST,)
    train, test = images
    if test.shape[1:] != train.shape[1:]:
        raise DataError(
            f"{sources[2]}: found images {test.shape[1:]}, expected {train.shape[1:]} as for "
            "training"
        )
    hint = large_floats_hint(train)
    if not hint and len(test) and (of_test := large_floats_hint(test)):
        hint = f"test {of_test}"
    samples = Samples(train, labels[0]), Samples(test, labels[1])
    return Dataset(name, *samples, names, notes + ((hint,) if hint else ()))


def _images(images: object, layout: str | None, what: str) -> Array:
    array = channels_first(pixels(images, what), layout, what)
    check_finite(array, what)
    return array
