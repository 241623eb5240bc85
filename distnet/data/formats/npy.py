"""Arrays in `.npy` files and `.npz` archives, by name; large ones stay in their file.

The format is NumPy's (NEP 1, "A simple file format for NumPy arrays"): a header that says type,
order and shape, then the numbers. Arrays of Python objects, which are pickles, are refused.
"""

from __future__ import annotations

import io
import struct
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from distnet.base.arrays import Array
from distnet.data import file_array
from distnet.data.errors import DataError, explained

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]  # shape, is in Fortran order, type
MAX_HEADER_BYTES = 10_000
MAGIC = np.lib.format.MAGIC_PREFIX  # how a file begins
# What NumPy, which reads headers by Python's own parser, and zipfile raise for damaged files.
DAMAGES = (
    ValueError,
    OverflowError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    NotImplementedError,
    struct.error,
)

SHOWN = "[!.]*"  # no hidden files: macOS puts a `._NAME` beside each file on disks of others


def has_arrays(directory: Path) -> bool:
    """Whether a directory holds `.npy` files, or one `.npz` archive."""
    return (
        bool(list(directory.glob(f"{SHOWN}.npy"))) or len(list(directory.glob(f"{SHOWN}.npz"))) == 1
    )


def read_named_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an archive, or of the files in a directory, by name, in alphabetical order.

    Raises DataError for whatever is wrong with one of the files.
    """
    if not path.is_dir():
        return _named(path)
    files = sorted(path.glob(f"{SHOWN}.npy"))
    if files:
        return {file.stem: read_npy(file) for file in files}
    (archive,) = path.glob(f"{SHOWN}.npz")
    return _named(archive)


def _named(path: Path) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for name, array in _archive(path):
        if name in arrays:
            raise DataError(f"{path}: found two arrays called {name}, expected one")
        arrays[name] = array
    return arrays


def read_npy(path: Path) -> Array:
    """The array in an `.npy` file, read-only; raises DataError."""
    with _explained(path), path.open("rb") as file:
        return _array(file, path, 0)


def parse_npy(content: bytes) -> Array:
    """The array in the content of an `.npy` file; raises DataError."""
    with _explained("the array"):
        return _array(io.BytesIO(content), Path("the array"), None)


def _archive(path: Path) -> Iterator[tuple[str, Array]]:
    with _explained(path), zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            name, _, suffix = member.filename.rpartition(".")
            if suffix == "npy":
                yield name, _member(archive, member, path)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Array:
    """What is stored as it is can stay in the archive; what is compressed is read into memory."""
    if member.compress_type == zipfile.ZIP_STORED and member.file_size > file_array.MEMORY_BYTES:
        with path.open("rb") as file:
            file.seek(member.header_offset + 26)  # where the lengths of name and extra field are
            name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
            start = member.header_offset + 30 + name_bytes + extra_bytes
            file.seek(start)
            return _array(file, path, start)
    with archive.open(member) as compressed:
        content = compressed.read()
    return _array(io.BytesIO(content), path, None)


def _array(file: IO[bytes], path: Path, start: int | None) -> Array:
    """The array whose header begins where `file` stands, at byte `start` of `path` or in memory."""
    shape, is_fortran, dtype = _header(file)
    if dtype.hasobject:
        raise DataError(f"{path}: found Python objects, expected numbers or text")
    if start is not None and not is_fortran and shape:  # a single number has no samples
        return file_array.file_array(path, shape, dtype, file.tell())
    content = file.read()
    order = shape[::-1] if is_fortran else shape
    array = np.frombuffer(content, dtype, count=int(np.prod(shape, dtype=object))).reshape(order)
    return array.T if is_fortran else array


def _header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise DataError(f"found version {version} of the format, expected 1.0 or 2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a header of Python 2 is read like any other
        shape, is_fortran, dtype = read(file, max_header_size=MAX_HEADER_BYTES)
    if min(shape, default=0) < 0:
        raise DataError(f"found shape {shape}, expected no negative sizes")
    return shape, is_fortran, dtype


@contextmanager
def _explained(path: Path | str) -> Iterator[None]:
    """As `explained`, for what NumPy and zipfile raise for damaged files as well."""
    with explained(path):
        try:
            yield
        except DataError as error:
            text = str(error)
            raise DataError(text if str(path) in text else f"{path}: {text}") from None
        except DAMAGES as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: damaged, or no file of NumPy ({reason:.200})") from None
