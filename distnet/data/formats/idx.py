"""The IDX format: a big-endian header with a magic number and the sizes, then the numbers.

Magic number 0x0000TTDD: TT is the type, 08 "unsigned byte" and 0C "int", DD the number of
dimensions; then DD sizes of 32 bits (LeCun, Cortes, Burges, "The MNIST database of handwritten
digits", section "File formats"). `idx_set` reads files with it, `pack` writes it. Nothing is
allocated on the word of a header: sizes are compared with what is really there.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distnet.base.arrays import Array
from distnet.data.errors import DataError, explained
from distnet.data.file_array import file_array

Bytes = NDArray[np.uint8]

TYPES = {">u1": (0x08, "unsigned bytes"), ">i4": (0x0C, "integers of 32 bits")}
_CHUNK_BYTES = 1 << 20


def read_idx(path: Path, num_dims: int, dtype: str = ">u1") -> Array:
    """The array in an IDX file, read-only; raises `DataError` for whatever is wrong with the file.

    `dtype` is one of `TYPES`. A large raw file stays where it is (`file_array`); a `.gz` file is
    decompressed into memory.
    """
    with explained(path):
        if path.suffix == ".gz":
            return _read_gzip(path, num_dims, dtype)
        with path.open("rb") as file:
            header = file.read(_header_bytes(num_dims))
        shape = _parse_header(header, num_dims, str(path), dtype)
        found, num_bytes = path.stat().st_size - len(header), _num_bytes(shape, dtype)
        if found != num_bytes:
            raise _wrong_length(str(path), f"{found}", shape, num_bytes)
    return file_array(path, shape, dtype, len(header))


def take_idx(buffer: memoryview, num_dims: int, source: str) -> tuple[Bytes, memoryview]:
    """The array at the start of `buffer` (a view, not a copy) and what comes after it.

    `source` names the buffer in a `DataError`.
    """
    header_bytes = _header_bytes(num_dims)
    shape = _parse_header(bytes(buffer[:header_bytes]), num_dims, source)
    body, num_bytes = buffer[header_bytes:], math.prod(shape)
    if len(body) < num_bytes:
        raise _wrong_length(source, f"{len(body)}", shape, num_bytes)
    return _read_only(body[:num_bytes], shape), body[num_bytes:]


def format_idx(array: Bytes) -> bytes:
    """`array` as the content of an IDX file."""
    code, _ = TYPES[">u1"]
    return struct.pack(f">I{array.ndim}I", code << 8 | array.ndim, *array.shape) + array.tobytes()


def _read_gzip(path: Path, num_dims: int, dtype: str) -> Array:
    with path.open("rb") as compressed:
        _check_gzip(compressed.read(2), path)
    with gzip.open(path) as file:
        shape = _parse_header(file.read(_header_bytes(num_dims)), num_dims, str(path), dtype)
        num_bytes = _num_bytes(shape, dtype)
        body = _read_at_most(file, num_bytes + 1)
    if len(body) != num_bytes:
        found = f"{len(body)}" if len(body) < num_bytes else f"more than {num_bytes}"
        raise _wrong_length(str(path), found, shape, num_bytes)
    return _read_only(body, shape, dtype)


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


def _num_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _parse_header(header: bytes, num_dims: int, source: str, dtype: str = ">u1") -> tuple[int, ...]:
    code, content = TYPES[dtype]
    magic = struct.pack(">I", code << 8 | num_dims)
    if len(header) >= 4 and header[:4] != magic:
        raise DataError(
            f"{source}: found magic number 0x{header[:4].hex()}, expected 0x{magic.hex()} "
            f"(IDX, {content}, dimensions: {num_dims})"
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


def _wrong_length(source: str, found: str, shape: tuple[int, ...], num_bytes: int) -> DataError:
    return DataError(
        f"{source}: found {found} bytes after the header, expected {num_bytes} "
        f"({_product(shape)}); fetch the file again"
    )


def _product(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _read_only(body: memoryview | bytearray, shape: tuple[int, ...], dtype: str = ">u1") -> Array:
    array = np.frombuffer(body, dtype).reshape(shape)
    array.flags.writeable = False
    return array
