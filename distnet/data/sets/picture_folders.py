"""A folder of pictures for each class: `DIR/cat/1.png`, or `DIR/train/cat/1.png` and `DIR/test`."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from distnet.base.arrays import Shape
from distnet.base.words import counted
from distnet.data.dataset import Dataset
from distnet.data.errors import DataError
from distnet.data.formats.pictures import SUFFIXES, header, read_pictures
from distnet.data.own import assembled

# Of the folders of these names, in whatever letters, the first one counts.
TRAIN_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "val", "valid", "validation")
MOST_OTHERS = 250_000  # files that are looked at where hardly any is a picture: a whole disk
BRIGHTEST_DARK = 15  # of 255: what 4095 of 65535 is, the white of a camera of 12 bits


def has_pictures(directory: Path) -> bool:
    """Whether a directory has folders that hold pictures."""
    folders = (folder for root in _roots(directory) for folder in _folders(root))
    return any(True for folder in folders for _ in _pictures(folder))


def read_picture_set(
    name: str, directory: Path, input_shape: Shape = (), *, prepare: str = "plain"
) -> Dataset:
    """The pictures below `directory`, in the order of their classes' and their own names.

    They become inputs of `input_shape`, see `read_pictures`. Without one all get the size that most
    of them have in training, and are grey, `(N, 1, H, W)`, if all are, or else in colour,
    `(N, 3, H, W)`. A note says what was scaled and cropped about the centre, as one does of what is
    not read. Everything is read into memory. Raises DataError.
    """
    roots = _roots(directory)
    parts = [_labelled(root) for root in roots]
    headers = [header(path) for part in parts for path, _ in part]
    if not input_shape:
        (size, _), *_ = Counter(size for size, _ in headers[: len(parts[0])]).most_common(1)
        input_shape = 1 if all(is_grey for _, is_grey in headers) else 3, *size[::-1]
    arrays: list[object] = []
    for part in parts:
        arrays += [
            read_pictures([path for path, _ in part], input_shape, prepare=prepare),
            np.array([label for _, label in part]),
        ]
    sources = [str(root) for root in roots for _ in range(2)]
    data = assembled(name, arrays, sources, layout="NCHW")
    height, width = input_shape[1:]
    others = sum(each != (width, height) for each, _ in headers)
    notes = data.notes + _too_dark(data)
    scaled = f"{others} of {len(headers)} pictures were scaled to {width} × {height}"
    notes += (scaled,) if others else ()
    read = {path for part in parts for path, _ in part}
    return replace(data, notes=notes + _unread(directory, roots, read), pictures=prepare)


def _roots(directory: Path) -> list[Path]:
    """The folder for training and, if there is one, that for the test, or the directory itself.

    A folder of such a name that holds pictures itself is a class, such as of cars and trains,
    unless there are folders with pictures in it and one for the test beside it.
    """
    folders = {folder.name.lower(): folder for folder in _folders(directory)}
    train, test = (
        [folders[name] for name in names if name in folders]
        for names in (TRAIN_FOLDERS, TEST_FOLDERS)
    )
    if not train:
        return [directory]
    is_class = any(_is_picture(path) for path in train[0].iterdir())
    if is_class and not (test and has_pictures(train[0]) and has_pictures(test[0])):
        return [directory]
    return train[:1] + test[:1]


def _too_dark(data: Dataset) -> tuple[str, ...]:
    """A note if all pictures are nearly black, as small numbers in 16 bits are."""
    brightest = max(int(part.inputs.max(initial=0)) for part in (data.train, data.test))
    if brightest > BRIGHTEST_DARK:
        return ()
    return (
        f"no pixel of any picture is brighter than {brightest} of 255; in files of 16 bits 65535 "
        "is white, so scale what they hold to that",
    )


def _unread(directory: Path, roots: list[Path], read: set[Path]) -> tuple[str, ...]:
    """Notes about folders that are no class, as nothing in them can be read, and about files."""
    full = {folder for path in read for folder in path.parents}
    empty = [folder.name for root in roots for folder in _folders(root) if folder not in full]
    known = read.union(roots, *map(_folders, roots))
    unread = sorted(
        path
        for path in directory.rglob("*")
        if path not in known and not _is_hidden(path, directory)
    )
    files = [path for path in unread if not path.is_dir()]
    # They may lead in a circle, and are followed only where classes or parts lie.
    links = [path for path in unread if path.is_symlink() and path.is_dir()]
    notes = [f"no pictures in {', '.join(empty)!s:.200}"] if empty else []
    if links:
        example = links[0].relative_to(directory)
        notes.append(f"not read: {counted(len(links), 'link')} to folders, such as {example}")
    if files:
        example = files[0].relative_to(directory)
        notes.append(f"not read: {counted(len(files), 'file')}, such as {example}")
    return tuple(notes)


def _folders(directory: Path) -> list[Path]:
    return sorted(
        (path for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=_composed,
    )


def _pictures(folder: Path) -> Iterator[Path]:
    """The pictures in a folder and below; raises DataError where hardly anything is one."""
    num_pictures, num_others = 0, 0
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = [Path(root, name) for name in files if not name.startswith(".")]
        pictures = [path for path in shown if _is_picture(path)]
        yield from pictures
        num_pictures += len(pictures)
        num_others += len(folders) + len(files) - len(pictures)
        if num_others > max(MOST_OTHERS, 10 * num_pictures):
            raise DataError(
                f"{folder}: found {counted(num_pictures, 'picture', spec=',')} among "
                f"{num_others:,} other files and folders, expected the pictures of a class; give "
                "the directory with a folder for each class"
            )


def _composed(path: Path) -> tuple[str, ...]:
    """Its parts, with one character for "é", of which macOS may have made two."""
    return tuple(unicodedata.normalize("NFC", part) for part in path.parts)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _is_hidden(path: Path, root: Path) -> bool:
    """Whether it, or a folder on the way to it, has a name such as .ipynb_checkpoints."""
    return any(part.startswith(".") for part in path.relative_to(root).parts)


def _labelled(root: Path) -> list[tuple[Path, str]]:
    """All pictures with the names of their folders."""
    found = [
        (path, _composed(folder)[-1])
        for folder in _folders(root)
        for path in sorted(_pictures(folder), key=_composed)
    ]
    if not found:
        raise DataError(f"{root}: found no pictures, expected a folder of them for each class")
    return found
