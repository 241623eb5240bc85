"""State dicts in the files of PyTorch, `.pt` and `.pth`, without PyTorch and without running any.

`torch.save` pickles a dict of tensors; a tensor refers to a storage, a run of numbers that lies
beside the pickle. Since PyTorch 1.6 they are entries of a zip archive that is not compressed:
`NAME/data.pkl`, and `NAME/data/KEY` for each storage. Before, and so in most of torchvision's older
weights, one file held several pickles in a row and the storages behind them. Both are read here
with the pickle reader that can import nothing (`pickled`); the zip format is written.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from distnet.base.arrays import Array
from distnet.base.files import write_atomically
from distnet.data.errors import DataError
from distnet.data.formats.pickled import content_of, unpickled, whole

MAX_BYTES = 4 << 30
MAX_OPCODES = 1_000_000  # ResNet-152 has 30,000
OPCODES = """
    PROTO STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINUNICODE BINSTRING
    SHORT_BINSTRING EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1
    TUPLE2 TUPLE3 BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL REDUCE BUILD BINPERSID
"""
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before PyTorch 1.6
PROTOCOL = 1001

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
STORAGES = {np.dtype(code): name for name, code in DTYPES.items()}


def read_torch(path: Path) -> dict[str, Array]:
    """The tensors of a state dict, by name, read-only; raises DataError for anything else."""
    content = content_of(path, MAX_BYTES, "a state dict of PyTorch")
    with whole(path, "state dict of PyTorch"):
        if zipfile.is_zipfile(io.BytesIO(content)):
            found, read = _from_zip(content)
        else:
            found, read = _from_pickles(content)
        if not isinstance(found, dict):
            raise DataError(f"found no dict ({type(found).__name__}), expected tensors by name")
        return {_name(name): _tensor(name, value, read) for name, value in found.items()}


def write_torch(path: Path, state: Mapping[str, Array]) -> None:
    """Writes a state dict, atomically, for `torch.load(path, weights_only=True)`; raises OSError.

    Raises ValueError for an array of a type that no tensor has.
    """
    pieces = {str(i): _little_endian(array) for i, array in enumerate(state.values())}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(
            "archive/data.pkl", _pickled(dict(zip(state, pieces.items(), strict=True)))
        )
        archive.writestr("archive/byteorder", "little")
        for key, array in pieces.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    write_atomically(path, file.getbuffer())


# What the pickle may import. Each name leads to a class or function of this module.


@dataclass(frozen=True)
class _Storage:
    """A run of `size` numbers that lies somewhere in the file under `key`."""

    dtype: np.dtype[Any]
    key: str
    size: int


@dataclass(frozen=True)
class _Tensor:
    """Numbers of a storage, from `offset` on; strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict[Any, Any]):
    """Stands for `collections.OrderedDict`, on which PyTorch notes the versions of its layers."""

    def __setstate__(self, state: object) -> None:
        pass


def _rebuilt(
    storage: object, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *others: object
) -> _Tensor:
    """Stands for what makes a tensor of a storage; whether it has a gradient does not matter."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise DataError("found a tensor of no storage, or of negative sizes")
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    size = math.prod(shape)
    if size and (last >= storage.size or size > storage.size):
        raise DataError(f"found a tensor {shape} that does not fit into {storage.size} numbers")
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: object, *others: object) -> object:
    """Stands for what makes a parameter of a tensor."""
    return tensor


ADMITTED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _rebuilt,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): np.dtype(code) for name, code in DTYPES.items()},
}


def _storage(pid: Any) -> _Storage:
    """What a persistent id of PyTorch stands for."""
    kind, dtype, key, _, size, *view = pid
    if kind != "storage" or not isinstance(dtype, np.dtype) or any(v is not None for v in view):
        raise DataError(f"found {kind!a:.30}, expected a storage")
    if type(size) is not int or size < 0:
        raise DataError(f"found a storage of {size!a:.30} numbers")
    return _Storage(dtype, str(key), size)


# Where the storages lie.

Read = Callable[[_Storage], Array]  # its numbers `(size,)`


def _from_zip(content: bytes) -> tuple[object, Read]:
    archive = zipfile.ZipFile(io.BytesIO(content))
    entries = archive.infolist()
    # So that what is read is bounded by the length of the file.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise DataError("found a compressed archive, expected one as PyTorch writes it")
    if sum(entry.file_size for entry in entries) > len(content):
        raise DataError("found an archive whose entries overlap")
    names = archive.namelist()
    (pickle_name,) = (name for name in names if name.endswith("/data.pkl"))
    folder = pickle_name.removesuffix("data.pkl")
    if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
        raise DataError("found numbers in big-endian order, expected little-endian")
    arrays: dict[str, bytes] = {}

    def read(storage: _Storage) -> Array:
        if storage.key not in arrays:
            arrays[storage.key] = archive.read(f"{folder}data/{storage.key}")
        return np.frombuffer(arrays[storage.key], storage.dtype, storage.size)

    found = unpickled(
        io.BytesIO(archive.read(pickle_name)), OPCODES, MAX_OPCODES, ADMITTED, _storage
    )
    return found, read


def _from_pickles(content: bytes) -> tuple[object, Read]:
    """Magic number, protocol, sizes of the machine; the dict; the keys, then their storages."""
    file, storages = io.BytesIO(content), dict[str, _Storage]()

    def noted(pid: Any) -> _Storage:
        storage = _storage(pid)
        return storages.setdefault(storage.key, storage)

    def following() -> Any:
        return unpickled(file, OPCODES, MAX_OPCODES, ADMITTED, noted)

    if (following(), following()) != (MAGIC, PROTOCOL):
        raise DataError("found another magic number than PyTorch's")
    if following().get("little_endian") is not True:
        raise DataError("found numbers in big-endian order, expected little-endian")
    found, keys, starts = following(), following(), dict[str, int]()
    for key in keys:
        (size,) = struct.unpack("<q", file.read(8))
        if size != storages[key].size:
            raise DataError(f"found a storage of {size} numbers, expected {storages[key].size}")
        starts[key] = file.tell()
        file.seek(size * storages[key].dtype.itemsize, io.SEEK_CUR)

    def read(storage: _Storage) -> Array:
        return np.frombuffer(content, storage.dtype, storage.size, starts[storage.key])

    return found, read


def _tensor(name: object, value: object, read: Read) -> Array:
    if not isinstance(value, _Tensor):
        kind = type(value).__name__
        raise DataError(f"found {name!a:.60} of type {kind}, expected tensors only: a state dict")
    numbers = read(value.storage)[value.offset :]
    strides = tuple(stride * numbers.itemsize for stride in value.strides)
    return as_strided(numbers, value.shape, strides, writeable=False)


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise DataError(f"found the name {name!a:.60}, expected text")
    return name


# Writing: the opcodes of a dict of tensors, which are few.


def _pickled(state: Mapping[str, tuple[str, Array]]) -> bytes:
    """The pickle, protocol 2, of an OrderedDict of tensors; each has its key and its array."""
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    items = b"".join(
        _opcodes(name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + _opcodes("storage")
        + f"ctorch\n{STORAGES[array.dtype]}\n".encode()
        + b"".join(map(_opcodes, (key, "cpu", array.size)))
        + b"tQ"  # the persistent id of a storage
        + b"".join(map(_opcodes, (0, array.shape, _strides(array), False)))
        + ordered_dict  # of hooks
        + b"tR"
        for name, (key, array) in state.items()
    )
    return b"\x80\x02" + ordered_dict + b"(" + items + b"u."


def _opcodes(value: object) -> bytes:
    """The opcodes that put a plain value on the stack."""
    return pickle.dumps(value, 2)[2:-1]


def _little_endian(array: Array) -> Array:
    array = np.asarray(array)
    little = array.dtype.newbyteorder("<")
    if little not in STORAGES:
        known = ", ".join(dtype.name for dtype in STORAGES)
        raise ValueError(f"found an array of {array.dtype}, expected one of {known}")
    return np.asarray(array, little, order="C")


def _strides(array: Array) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)
