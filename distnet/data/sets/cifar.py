"""CIFAR-10 and CIFAR-100: colour pictures of 32 × 32, in their binary or their Python files.

A record of the binary files is the label, of CIFAR-100 the coarse and the fine one, and then 1024
bytes each of red, green and blue (Krizhevsky, "Learning multiple layers of features from tiny
images", 2009, and the page that it is published on). The Python files are pickles of the same
bytes, and nothing in them is run (`formats.pickled`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distnet.base.arrays import Array
from distnet.data.dataset import Dataset
from distnet.data.errors import DataError, explained
from distnet.data.formats.pickled import read_pickled_table
from distnet.data.own import assembled
from distnet.data.source import RemoteFile, Source, directory_of

PIXELS = (3, 32, 32)
PIXEL_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class Files:
    """How the files of a CIFAR data set are called, by the names that they are published under.

    folders: of the binary and the Python archive. train, test: the files, which end in `.bin` in
    the binary one. label_bytes: of a record, the last of which is the label. labels, names: the
    entries of the pickles that hold them.
    """

    name: str
    folders: tuple[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int
    labels: str
    names: str
    names_files: tuple[str, str]

    def load(self, data_dir: Path | None, cache_dir: Path | None) -> Dataset:
        """The binary files if they are there, or else the Python ones."""
        given = directory_of(self.name, data_dir, cache_dir)
        for directory, suffix in self._places(given):
            if (directory / f"{self.train[0]}{suffix}").is_file():
                return self._read(directory, suffix)
        raise DataError(
            f"{given}: found no file {self.train[0]}.bin or {self.train[0]}, expected {self.name} "
            f"there or in {' or '.join(self.folders)}"
        )

    def is_in(self, given: Path) -> bool:
        """Whether a file of each part is there."""
        firsts = self.train[0], self.test[0]
        return any(
            all((directory / f"{first}{suffix}").is_file() for first in firsts)
            for directory, suffix in self._places(given)
        )

    def _places(self, given: Path) -> Iterator[tuple[Path, str]]:
        """The directories that its files may be in, with how their names end."""
        for directory in (given, *(given / folder for folder in self.folders)):
            yield from ((directory, suffix) for suffix in (".bin", ""))

    def _read(self, directory: Path, suffix: str) -> Dataset:
        arrays: list[Array] = []
        for files in (self.train, self.test):
            paths = [directory / f"{file}{suffix}" for file in files]
            parts = [self._binary(path) if suffix else self._pickled(path) for path in paths]
            arrays += [np.concatenate(each) for each in zip(*parts, strict=True)]
        sources = [f"{directory} ({part})" for part in ("train", "train", "test", "test")]
        return assembled(self.name, arrays, sources, classes=self._class_names(directory))

    def _binary(self, path: Path) -> tuple[Array, Array]:
        with explained(path):
            content = np.fromfile(path, np.uint8)
        record = self.label_bytes + PIXEL_BYTES
        if not content.size or content.size % record:
            raise DataError(
                f"{path}: found {content.size} bytes, expected a multiple of {record}; fetch the "
                "file again"
            )
        rows = content.reshape(-1, record)
        return rows[:, self.label_bytes :].reshape(-1, *PIXELS), rows[:, self.label_bytes - 1]

    def _pickled(self, path: Path) -> tuple[Array, Array]:
        table = read_pickled_table(path)
        pixels, labels = table.get("data"), table.get(self.labels)
        right = np.dtype(np.uint8), (PIXEL_BYTES,)
        if not isinstance(pixels, np.ndarray) or (pixels.dtype, pixels.shape[1:]) != right:
            raise DataError(
                f"{path}: found no array 'data' of bytes (N, {PIXEL_BYTES}), expected one"
            )
        if not isinstance(labels, list) or not all(type(label) is int for label in labels):
            raise DataError(f"{path}: found no list '{self.labels}' of integers, expected one")
        if len(labels) != len(pixels):
            raise DataError(f"{path}: found {len(labels)} labels, expected {len(pixels)}")
        return pixels.reshape(-1, *PIXELS), np.array(labels)

    def _class_names(self, directory: Path) -> Sequence[str] | None:
        """From the file that comes with the archive; the numbers without it."""
        binary, pickled = (directory / file for file in self.names_files)
        if binary.is_file():
            with explained(binary):
                return binary.read_text(encoding="utf-8", errors="replace").split()
        names = read_pickled_table(pickled).get(self.names) if pickled.is_file() else None
        return [str(name) for name in names] if isinstance(names, list) else None


def _source(files: Files, contents: str, archive: str, sha256: str) -> Source:
    folder = "https://www.cs.toronto.edu/~kriz"
    remote = (RemoteFile(archive, folder, sha256),)
    page = f"{folder}/cifar.html"
    return Source(
        files.load,
        contents,
        "none stated; cite the report",
        page,
        download="170 MB",
        files=remote,
        is_in=files.is_in,
    )


CIFAR10 = _source(
    Files(
        "cifar10",
        ("cifar-10-batches-bin", "cifar-10-batches-py"),
        tuple(f"data_batch_{i}" for i in range(1, 6)),
        ("test_batch",),
        label_bytes=1,
        labels="labels",
        names="label_names",
        names_files=("batches.meta.txt", "batches.meta"),
    ),
    "50,000 + 10,000 photographs, 32 × 32 in colour, 10 classes",
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)
CIFAR100 = _source(
    Files(
        "cifar100",
        ("cifar-100-binary", "cifar-100-python"),
        ("train",),
        ("test",),
        label_bytes=2,
        labels="fine_labels",
        names="fine_label_names",
        names_files=("fine_label_names.txt", "meta"),
    ),
    "50,000 + 10,000 photographs, 32 × 32 in colour, 100 classes",
    "cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
)
