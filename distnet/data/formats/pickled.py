"""Arrays in a pickle file, such as the weights that the book publishes, without running any of it.

A pickle is a program: it may call whatever it can import. Here it can import nothing. The names
with which NumPy's arrays are pickled lead to classes of this module that note what they are given,
every other name is refused, and so are opcodes that arrays do not need, before the first one is
executed. Protocols 2 to 5. `convert` reads weights with it, `sets.cifar` images and labels, and
`torch_file` what PyTorch's files pickle.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from distnet.base.arrays import Array
from distnet.data.errors import DataError, explained

Floats = NDArray[np.floating[Any]]

MAX_BYTES = 256 << 20
MAX_OPCODES = 10_000  # of weights; the book's largest file has about 500
ARRAYS = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINUNICODE SHORT_BINUNICODE
    BINBYTES SHORT_BINBYTES BYTEARRAY8 EMPTY_DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2
    TUPLE3 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""
TABLES = f"{ARRAYS} BINSTRING SHORT_BINSTRING EMPTY_LIST APPEND APPENDS"
MAX_TABLE_OPCODES = 1_000_000  # labels and file names of 50,000 images are 300,000


def read_pickled_arrays(path: Path) -> dict[str, Floats]:
    """The arrays of a pickled dict, by name, read-only; raises DataError for anything else."""
    return dict(_floats(_load(path, ARRAYS, MAX_OPCODES), path))


def read_pickled_table(path: Path) -> dict[str, Array | list[Any] | str | int]:
    """A pickled dict of arrays, lists, text and integers, by name, also one of Python 2.

    Its text is taken byte by byte (latin1). Raises DataError for anything else.
    """
    found = _load(path, TABLES, MAX_TABLE_OPCODES)
    return {name: _table_entry(value, path) for name, value in _entries(found, path)}


def _load(path: Path, opcodes: str, max_opcodes: int) -> object:
    content = content_of(path, MAX_BYTES, "a pickle of arrays")
    with whole(path, "pickle of arrays"):
        return unpickled(io.BytesIO(content), opcodes, max_opcodes, ADMITTED)


def unpickled(
    file: BinaryIO,
    opcodes: str,
    max_opcodes: int,
    admitted: Mapping[tuple[str, str], object],
    persistent: Callable[[Any], object] | None = None,
) -> object:
    """What the pickle at the position of `file`, in memory, holds; the position is then behind it.

    opcodes: the names of those that it may have. admitted: what the names that it may import stand
    for; persistent: what makes an object of each persistent id, if it may have any. Raises
    DataError for what is not admitted, and whatever a damaged pickle raises.
    """
    start = file.tell()
    _check_opcodes(file, set(opcodes.split()), max_opcodes)
    stop = file.tell()
    file.seek(start)
    return _Reader(io.BytesIO(file.read(stop - start)), admitted, persistent).load()


def content_of(path: Path, max_bytes: int, expected: str) -> bytes:
    """The bytes of a file, which is not read if it has more than `max_bytes`; raises DataError."""
    with explained(path):
        if not path.is_file():
            raise DataError(f"{path}: found no file, expected {expected}")
        if path.stat().st_size <= max_bytes:
            return path.read_bytes()
    raise DataError(f"{path}: found more than {max_bytes} bytes, expected {expected}")


@contextmanager
def whole(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a damaged file leads to into a DataError with the name of the file."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # what a damaged pickle may raise is not limited to a few types
        reason = ascii(" ".join(str(error).split()) or type(error).__name__)
        raise DataError(f"{path}: damaged, or no {what} ({reason:.200})") from None


def _check_opcodes(file: BinaryIO, admitted: set[str], max_opcodes: int) -> None:
    """So that what executing them takes is bounded by the length of the file."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file), 1):
        if opcode.name not in admitted:
            raise DataError(f"found opcode {opcode.name}, which no pickle of arrays needs")
        place = int(argument or 0) if opcode.name == "LONG_BINPUT" else 0  # memory for as many
        if max(place, count) > max_opcodes:
            raise DataError(f"found more than {max_opcodes} opcodes, expected a few arrays")


class _DType:
    """Stands for `numpy.dtype`: notes the type and the byte order."""

    def __init__(self, code: str, align: bool, copy: bool) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def checked(self) -> np.dtype[Any]:
        if (self.code, self.order) not in KINDS:
            raise DataError(
                f"found type {self.order!r:.20}{self.code!r:.20}, expected f4 or f8, or u1"
            )
        return np.dtype(self.order + self.code)


KINDS = {("f4", "<"), ("f4", ">"), ("f8", "<"), ("f8", ">"), ("u1", "|")}


class _Array:
    """Stands for an array in the making, as `_reconstruct` of NumPy returns it."""

    def __init__(self, kind: object, shape: tuple[int, ...], code: bytes) -> None:
        self.array: Array | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.array = _checked_array(content, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(
    content: bytes | bytearray, dtype: _DType, shape: tuple[int, ...], order: str
) -> _Array:
    """Stands for `_frombuffer` of NumPy, with which protocol 5 makes arrays."""
    made = _Array(None, shape, b"")
    made.array = _checked_array(content, dtype, shape, order)
    return made


def _checked_array(
    content: bytes | bytearray | str, dtype: _DType, shape: tuple[int, ...], order: str
) -> Array:
    kind = dtype.checked()
    if isinstance(content, str):  # the bytes of Python 2
        content = content.encode("latin1")
    if min(shape, default=1) < 1 or math.prod(shape) * kind.itemsize != len(content):
        raise DataError(f"found an array of shape {shape} in {len(content)} bytes of {kind}")
    array = np.frombuffer(content, kind).reshape(shape, order="F" if order == "F" else "C")
    array.flags.writeable = False
    return array


def _encoded(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, with which protocol 2 makes bytes."""
    if encoding != "latin1":
        raise DataError(f"found bytes in encoding {encoding!r:.20}, expected latin1")
    return text.encode("latin1")


def _ordered_dict() -> dict[str, object]:
    """Stands for `collections.OrderedDict`, before its entries are set."""
    return {}


NUMPY = ("numpy.core", "numpy._core")  # the latter is NumPy 2
ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): object(),  # only mentioned
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): _ordered_dict,
    **{(f"{core}.multiarray", "_reconstruct"): _Array for core in NUMPY},
    **{(f"{core}.numeric", "_frombuffer"): _from_buffer for core in NUMPY},
}


class _Reader(pickle.Unpickler):
    def __init__(
        self,
        file: BinaryIO,
        admitted: Mapping[tuple[str, str], object],
        persistent: Callable[[Any], object] | None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._admitted, self._persistent = admitted, persistent

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self._admitted:
            wanted = ascii(f"{module}.{name}")
            raise DataError(f"found {wanted:.100}, expected arrays only; nothing was run")
        return self._admitted[module, name]

    def persistent_load(self, pid: object) -> object:
        if self._persistent is None:
            raise DataError("found a persistent object, expected arrays only")
        return self._persistent(pid)


def _entries(found: object, path: Path) -> Iterator[tuple[str, object]]:
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise DataError(f"{path}: found no dict ({kind}), expected one of arrays by name")
    for name, value in found.items():
        if not isinstance(name, str):
            raise _no_array(value, path)
        yield name, value


def _floats(found: object, path: Path) -> Iterator[tuple[str, Floats]]:
    for name, value in _entries(found, path):
        if not isinstance(value, _Array) or value.array is None:
            raise _no_array(value, path)
        if value.array.dtype.kind != "f":
            raise DataError(f"{path}: found {name!a:.40} of {value.array.dtype}, expected floats")
        yield name, value.array


def _table_entry(value: object, path: Path) -> Array | list[Any] | str | int:
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    if isinstance(value, list | str | int):
        return value
    raise _no_array(value, path)


def _no_array(value: object, path: Path) -> DataError:
    return DataError(f"{path}: found an entry that is no array ({type(value).__name__})")
