"""The four IDX files of a data set like MNIST: images and labels, for training and for the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distnet.base.arrays import Array
from distnet.data.errors import DataError, explained
from distnet.data.formats.idx import read_idx

# MNIST's names and their numbers of dimensions, in the order in which `pack` joins them.
IDX_FILES = {
    "train-images-idx3-ubyte": 3,
    "train-labels-idx1-ubyte": 1,
    "t10k-images-idx3-ubyte": 3,
    "t10k-labels-idx1-ubyte": 1,
}


def read_idx_set(
    directory: Path, files: Mapping[str, int] = IDX_FILES
) -> tuple[list[Array], list[str]]:
    """The four arrays in the order of `files`, names with numbers of dimensions, and their paths.

    A file may be raw or gzipped; with a point in place of the hyphen, `train-images.idx3-ubyte`,
    it is what some archives unpack to. Raises DataError.
    """
    paths = [_find(directory, file) for file in files]
    arrays = [
        read_idx(path, num_dims, ">i4" if file.endswith("-int") else ">u1")
        for path, (file, num_dims) in zip(paths, files.items(), strict=True)
    ]
    return arrays, [str(path) for path in paths]


def has_idx_set(directory: Path, files: Mapping[str, int] = IDX_FILES) -> bool:
    """Whether one of the files is there."""
    return any(_path(directory, file) for file in files)


def _find(directory: Path, file: str) -> Path:
    with explained(directory):
        if not directory.is_dir():
            raise DataError(f"{directory}: found no such directory, expected one with IDX files")
        path = _path(directory, file)
    if path is None:
        raise DataError(
            f"{directory}: found no file {file}, expected it there, raw or as {file}.gz"
        )
    return path


def _path(directory: Path, file: str) -> Path | None:
    """Raw before gzipped."""
    for variant in (file, file.replace("-idx", ".idx")):
        for path in (directory / variant, directory / f"{variant}.gz"):
            if path.is_file():
                return path
    return None
