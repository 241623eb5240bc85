"""The IDX format: a big-endian header with a magic number and the sizes, then unsigned bytes.

Magic number 0x0000080D: 08 is "unsigned byte", D the number of dimensions; then D sizes of 32 bits
(LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats").
`dataset` reads files and the packaged data set with it, `pack` writes it. Nothing is allocated on
the word of a header: sizes are compared with what is really there.
"""

from __future__ import annotations

import gzip
import math
import mmap
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distnet.data.errors import DataError, explained

Bytes = NDArray[np.uint8]

_UNSIGNED_BYTE = 0x08
_CHUNK_BYTES = 1 << 20


def read_idx(path: Path, num_dims: int) -> Bytes:
    """The array in an IDX file, read-only; raises `DataError` for whatever is wrong with the file.

    A raw file is mapped, so all processes of a node share its memory; a `.gz` file is decompressed
    into private memory.
    """
    with explained(path):
        if path.suffix == ".gz":
            return _read_gzip(path, num_dims)
        array, rest = take_idx(memoryview(_mapped(path)), num_dims, str(path))
    if rest:
        raise _wrong_length(str(path), f"{array.nbytes + len(rest)}", array.shape)
    return array


def take_idx(buffer: memoryview, num_dims: int, source: str) -> tuple[Bytes, memoryview]:
    """The array at the start of `buffer` (a view, not a copy) and what comes after it.

    `source` names the buffer in a `DataError`.
    """
    header_bytes = _header_bytes(num_dims)
    shape = _parse_header(bytes(buffer[:header_bytes]), num_dims, source)
    body, num_bytes = buffer[header_bytes:], math.prod(shape)
    if len(body) < num_bytes:
        raise _wrong_length(source, f"{len(body)}", shape)
    return _read_only(body[:num_bytes], shape), body[num_bytes:]


def format_idx(array: Bytes) -> bytes:
    """`array` as the content of an IDX file."""
    magic = _UNSIGNED_BYTE << 8 | array.ndim
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


def _mapped(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # which mmap refuses
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _read_gzip(path: Path, num_dims: int) -> Bytes:
    with path.open("rb") as compressed:
        _check_gzip(compressed.read(2), path)
    with gzip.open(path) as file:
        shape = _parse_header(file.read(_header_bytes(num_dims)), num_dims, str(path))
        num_bytes = math.prod(shape)
        body = _read_at_most(file, num_bytes + 1)
    if len(body) != num_bytes:
        found = f"{len(body)}" if len(body) < num_bytes else f"more than {num_bytes}"
        raise _wrong_length(str(path), found, shape)
    return _read_only(body, shape)


def _check_gzip(start: bytes, path: Path) -> None:
    if start != b"\x1f\x8b":
        raise DataError(
            f"{path}: found a file that starts with {start.hex() or 'nothing'}, expected gzip "
            "(1f8b); if it is decompressed already, take .gz off its name"
        )


def _read_at_most(file: gzip.GzipFile, limit_bytes: int) -> bytearray:
    """In chunks, because `file.read(n)` allocates n bytes at once, however few there are."""
    content = bytearray()
    while chunk := file.read(min(_CHUNK_BYTES, limit_bytes - len(content))):
        content += chunk
    return content


def _header_bytes(num_dims: int) -> int:
    return 4 + 4 * num_dims


def _parse_header(header: bytes, num_dims: int, source: str) -> tuple[int, ...]:
    magic = struct.pack(">I", _UNSIGNED_BYTE << 8 | num_dims)
    if len(header) >= 4 and header[:4] != magic:
        raise DataError(
            f"{source}: found magic number 0x{header[:4].hex()}, expected 0x{magic.hex()} "
            f"(IDX, unsigned bytes, dimensions: {num_dims})"
        )
    if len(header) < _header_bytes(num_dims):
        raise DataError(
            f"{source}: found {len(header)} bytes, expected an IDX header of "
            f"{_header_bytes(num_dims)}; fetch the file again"
        )
    shape = struct.unpack_from(f">{num_dims}I", header, 4)
    if 0 in shape:
        raise DataError(f"{source}: found an empty set ({_product(shape)}), expected samples")
    return shape


def _wrong_length(source: str, found: str, shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"{source}: found {found} bytes after the header, expected {math.prod(shape)} "
        f"({_product(shape)}); fetch the file again"
    )


def _product(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _read_only(body: memoryview | bytearray, shape: tuple[int, ...]) -> Bytes:
    array = np.frombuffer(body, np.uint8).reshape(shape)
    array.flags.writeable = False
    return array
