"""Labelled images in memory: the MNIST that ships with the package, or IDX files in a directory.

Images are uint8 `(N, C, H, W)`, labels uint8 `(N,)`, both read-only and where possible shared by
all processes of a node (`cache`, `idx`). MNIST is the data set of the book's section 3.6.1;
Fashion-MNIST and others in the same four files work the same way. Called by the commands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distnet.base.arrays import Array, Shape
from distnet.data.cache import decompressed
from distnet.data.errors import DataError, explained
from distnet.data.formats.idx import Bytes, read_idx, take_idx

# The published names and their numbers of dimensions, in the order in which `pack` joins them.
IDX_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}
MAX_CLASSES = 256  # labels are bytes


class Samples(NamedTuple):
    """Inputs `(N, ...)` and what they are to be mapped to, `(N, ...)`; indexed by index arrays."""

    inputs: Array
    targets: Array


@dataclass(frozen=True, eq=False)
class Dataset:
    """A training and a test set whose inputs have one shape.

    name: what summaries and run directories call it.
    train, test: images `(N, C, H, W)`, uint8 or floats, and labels `(N,)`, whole numbers.
    classes: the name of each label; label k means `classes[k]`.
    notes: lines that a reader of the files has to tell their user, such as how labels were mapped.
    """

    name: str
    train: Samples
    test: Samples
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def input_shape(self) -> Shape:
        """The shape of one input, `(C, H, W)`."""
        return self.train.inputs.shape[1:]

    @property
    def scale(self) -> float:
        """What a stored number is multiplied by on its way into a network; see `pixel_scale`."""
        return pixel_scale(self.train.inputs)

    @cached_property
    def sha256(self) -> str:
        """What tells this data from other data; see `digest`."""
        return digest((*self.train, *self.test))


def pixel_scale(images: Array) -> float:
    """1/255 for bytes, which mean 0 to 1 everywhere; 1 for floats, which are taken as they are."""
    return 1 / 255 if images.dtype == np.uint8 else 1.0


WHOLE_BYTES = 1 << 30  # an array of up to this size is read whole for its digest
PIECE_BYTES = 1 << 20  # what is read at a time
NUM_PIECES = 256  # how many pieces are read of a larger array


def digest(arrays: Iterable[Array]) -> str:
    """The SHA-256 of the arrays' bytes, `(N, ...)` each, one array after the other.

    Of an array of more than `WHOLE_BYTES`, which may be mapped and larger than memory, it takes
    the type, the shape and `NUM_PIECES` pieces at even distances, the first and the last samples
    among them. In a second that tells apart what was exchanged, cut off or written anew, but not
    what was changed in one place.
    """
    sha = hashlib.sha256()
    for array in arrays:
        rows = max(1, PIECE_BYTES * len(array) // max(1, array.nbytes))
        starts: Sequence[int] = range(0, len(array), rows)
        if array.nbytes > WHOLE_BYTES:
            sha.update(f"{array.dtype.str} {array.shape}".encode())
            last = len(array) - rows
            starts = [last * i // (NUM_PIECES - 1) for i in range(NUM_PIECES)]
        for start in starts:
            sha.update(np.ascontiguousarray(array[start : start + rows]).data)
    return sha.hexdigest()


def load_dataset(
    name: str = "mnist",
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    num_classes: int | None = None,
) -> Dataset:
    """The packaged MNIST, or the four IDX files in `data_dir`, then called `name`.

    `cache_dir` is where processes share the decompressed MNIST; None keeps it in private memory.
    `num_classes` defaults to the largest label + 1. Raises `DataError`, one line, for
    everything that is missing, damaged or inconsistent.
    """
    if num_classes is not None and not 1 <= num_classes <= MAX_CLASSES:
        raise DataError(f"found {num_classes} classes, expected 1 to {MAX_CLASSES}")
    if data_dir is not None:
        return _load_directory(name, Path(data_dir), num_classes)
    if name != "mnist":
        raise DataError(f"found data set '{name}', expected 'mnist' or a directory of IDX files")
    return _load_packaged(name, cache_dir, num_classes)


def _load_packaged(name: str, cache_dir: Path | None, num_classes: int | None) -> Dataset:
    source = resources.files("distnet.data") / f"{name}.idx.gz"
    with explained(source):
        rest = decompressed(source, cache_dir)
    arrays = []
    for num_dims in IDX_FILES.values():
        array, rest = take_idx(rest, num_dims, str(source))
        arrays.append(array)
    return _assemble(name, arrays, [f"{source} ({file})" for file in IDX_FILES], num_classes)


def _load_directory(name: str, data_dir: Path, num_classes: int | None) -> Dataset:
    paths = [_find(data_dir, file) for file in IDX_FILES]
    arrays = [read_idx(path, d) for path, d in zip(paths, IDX_FILES.values(), strict=True)]
    return _assemble(name, arrays, [str(path) for path in paths], num_classes)


def _find(data_dir: Path, file: str) -> Path:
    """Raw before gzipped; `train-images.idx3-ubyte` is what some archives unpack to."""
    with explained(data_dir):
        if not data_dir.is_dir():
            raise DataError(f"{data_dir}: found no such directory, expected one with IDX files")
        for variant in (file, file.replace("-idx", ".idx")):
            for path in (data_dir / variant, data_dir / f"{variant}.gz"):
                if path.is_file():
                    return path
    raise DataError(f"{data_dir}: found no file {file}, expected it there, raw or as {file}.gz")


def _assemble(
    name: str, arrays: list[Bytes], sources: list[str], num_classes: int | None
) -> Dataset:
    """Checks that the four arrays belong together."""
    train_images, train_labels, test_images, test_labels = arrays
    _check_counts(arrays[:2], sources[:2])
    _check_counts(arrays[2:], sources[2:])
    _check_image_size(train_images, test_images, sources[2])
    if num_classes is None:
        num_classes = 1 + int(max(train_labels.max(), test_labels.max()))
    _check_labels(train_labels, num_classes, sources[1])
    _check_labels(test_labels, num_classes, sources[3])
    return Dataset(
        name,
        Samples(train_images[:, None], train_labels),
        Samples(test_images[:, None], test_labels),
        tuple(map(str, range(num_classes))),
    )


def _check_counts(pair: list[Bytes], sources: list[str]) -> None:
    images, labels = pair
    if len(images) != len(labels):
        raise DataError(
            f"{sources[1]}: found {len(labels)} labels, expected {len(images)}, "
            f"one for each image in {sources[0]}"
        )


def _check_image_size(train_images: Bytes, test_images: Bytes, source: str) -> None:
    (_, h, w), (_, test_h, test_w) = train_images.shape, test_images.shape
    if (test_h, test_w) != (h, w):
        raise DataError(
            f"{source}: found images of {test_h} × {test_w}, expected {h} × {w} as for training"
        )


def _check_labels(labels: Bytes, num_classes: int, source: str) -> None:
    if labels.max() >= num_classes:
        raise DataError(
            f"{source}: found label {labels.max()}, expected 0 to {num_classes - 1} "
            f"for {num_classes} classes"
        )
