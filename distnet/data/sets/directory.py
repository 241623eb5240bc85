"""A data set of whatever lies at a path: published files, arrays of NumPy, or pictures by class."""

from __future__ import annotations

from pathlib import Path

from distnet.base.arrays import Shape
from distnet.base.files import expanded, real
from distnet.data.dataset import Dataset
from distnet.data.errors import DataError, explained
from distnet.data.formats.idx_set import has_idx_set, read_idx_set
from distnet.data.formats.npy import has_arrays, read_named_arrays
from distnet.data.own import assembled
from distnet.data.sets.cifar import CIFAR10, CIFAR100
from distnet.data.sets.like_mnist import EMNIST, QMNIST
from distnet.data.sets.named_arrays import from_named_arrays
from distnet.data.sets.picture_folders import has_pictures, read_picture_set

EXPECTED = (
    "four IDX files like MNIST's, the files of QMNIST, EMNIST or CIFAR, NumPy arrays such as "
    "train_images.npy, or a folder of pictures for each class"
)
# Those whose files are told by their names.
NAMED = {
    "qmnist": QMNIST,
    **{f"emnist_{split}": source for split, source in EMNIST.items()},
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
}


def read_path(
    path: Path, name: str = "", input_shape: Shape = (), *, prepare: str = "plain"
) -> Dataset:
    """The data set in a directory or in an .npz file, called `name` or by the name of that.

    Pictures become inputs of `input_shape`, if there is one, as `prepare` says: see
    `read_picture_set`. Raises DataError if there is no data set, or if it is damaged or
    inconsistent.
    """
    path = expanded(path)
    whole = real(path)
    name = name or (whole.name if path.is_dir() else whole.stem)
    with explained(path):
        if path.is_dir():
            return _read_directory(path, name, input_shape, prepare)
        if path.suffix == ".npz" and path.is_file():
            return from_named_arrays(name, read_named_arrays(path), str(path))
    raise DataError(
        f"{path}: found no such directory, expected one with {EXPECTED}, or an .npz file"
    )


def _read_directory(path: Path, name: str, input_shape: Shape, prepare: str) -> Dataset:
    if has_idx_set(path):
        return assembled(name, *read_idx_set(path))
    found = [known for known, source in NAMED.items() if source.is_in(path)]
    if len(found) > 1:
        raise DataError(
            f"{path}: found {', '.join(found)}, expected one data set; say which, such as --data "
            f"{found[0]}"
        )
    if found:
        return NAMED[found[0]].load(path, None)
    if has_arrays(path):
        return from_named_arrays(name, read_named_arrays(path), str(path))
    if has_pictures(path):
        return read_picture_set(name, path, input_shape, prepare=prepare)
    raise DataError(f"{path}: found no data set, expected {EXPECTED}")
