"""Images to be predicted, from files of any kind: arrays of NumPy, IDX, pictures."""

from __future__ import annotations

from pathlib import Path

from distnet.base.arrays import Array, Shape
from distnet.base.images import checked_images
from distnet.data.errors import DataError, explained
from distnet.data.formats.idx import read_idx
from distnet.data.formats.npy import read_named_arrays, read_npy
from distnet.data.formats.pictures import SUFFIXES, read_pictures
from distnet.data.sets.named_arrays import images_of

IDX_IMAGES = b"\x00\x00\x08\x03"  # the magic number of bytes in three dimensions
GZIP = b"\x1f\x8b"


def read_images(path: Path, input_shape: Shape, *, prepare: str = "plain") -> Array:
    """The images in a file for a network that reads `input_shape`: `(N, *input_shape)`.

    A `.npy` file, an `.npz` archive with one array or one called images, an IDX file, raw or
    gzipped, or a picture; see `pictures.read_pictures` for `prepare`. An array may be a single
    image too. Raises DataError.
    """
    if path.suffix.lower() in SUFFIXES:
        return read_pictures([path], input_shape, prepare=prepare)
    images = _array(path)
    if images.shape and images.shape in (input_shape, input_shape[1:]):
        images = images[:][None]
    return checked_images(images, input_shape, str(path))


def _array(path: Path) -> Array:
    if path.suffix == ".npy":
        return read_npy(path)
    if path.suffix == ".npz":
        return images_of(read_named_arrays(path), str(path))
    with explained(path), path.open("rb") as file:
        start = file.read(4)
    if start == IDX_IMAGES or (start.startswith(GZIP) and path.suffix == ".gz"):
        return read_idx(path, 3)
    raise DataError(
        f"{path}: found a file of another kind, expected .npy, .npz, IDX images, or a picture "
        f"({', '.join(sorted(SUFFIXES))})"
    )
