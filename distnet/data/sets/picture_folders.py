"""A folder of pictures for each class: `DIR/cat/1.png`, or `DIR/train/cat/1.png` and `DIR/test`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from distnet.data.dataset import Dataset
from distnet.data.errors import DataError
from distnet.data.formats.pictures import SUFFIXES, header, stacked_pictures
from distnet.data.own import assembled

TEST_FOLDERS = ("test", "val", "valid", "validation")


def has_pictures(directory: Path) -> bool:
    """Whether a directory has folders that hold pictures."""
    return any(_pictures(folder) for folder in _folders(directory))


def read_picture_set(name: str, directory: Path) -> Dataset:
    """The pictures below `directory`, in the order of their classes' and their own names.

    All get the size that most of them have in training; others are scaled and cropped about the
    centre, and a note says so. They are grey, `(N, 1, H, W)`, if all are, or else in colour,
    `(N, 3, H, W)`. Everything is read into memory. Raises DataError.
    """
    train, test = directory / "train", [directory / folder for folder in TEST_FOLDERS]
    if train.is_dir():
        roots = [train, *[folder for folder in test if folder.is_dir()][:1]]
    else:
        roots = [directory]
    parts = [_labelled(root) for root in roots]
    headers = [header(path) for part in parts for path, _ in part]
    (size, _), *_ = Counter(size for size, _ in headers[: len(parts[0])]).most_common(1)
    is_grey = all(is_grey for _, is_grey in headers)
    arrays: list[object] = []
    for part in parts:
        arrays += [
            stacked_pictures([path for path, _ in part], size, is_grey),
            np.array([label for _, label in part]),
        ]
    sources = [str(root) for root in roots for _ in range(2)]
    data = assembled(name, arrays, sources, layout="NCHW")
    others = sum(each != size for each, _ in headers)
    width, height = size
    scaled = f"{others} of {len(headers)} pictures were scaled to {width} × {height}"
    notes = data.notes + (scaled,) if others else data.notes
    return replace(data, notes=notes)


def _folders(directory: Path) -> list[Path]:
    return sorted(
        path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _labelled(root: Path) -> list[tuple[Path, str]]:
    """All pictures with the names of their folders."""
    found = [(path, folder.name) for folder in _folders(root) for path in _pictures(folder)]
    if not found:
        raise DataError(f"{root}: found no pictures, expected a folder of them for each class")
    return found
