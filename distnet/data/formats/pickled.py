"""Arrays in a pickle file, such as the weights that the book publishes, without running any of it.

A pickle is a program: it may call whatever it can import. Here it can import nothing. The names
with which NumPy's arrays are pickled lead to classes of this module that note what they are given,
every other name is refused, and so are opcodes that arrays do not need, before the first one is
executed. Protocols 3 and 4, in which bytes are bytes; floats of 4 and 8 bytes. `convert` calls it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from distnet.data.errors import DataError, explained

Floats = NDArray[np.floating[Any]]

MAX_BYTES = 256 << 20
MAX_OPCODES = 10_000  # the book's largest file has about 500
OPCODES = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINUNICODE SHORT_BINUNICODE
    BINBYTES SHORT_BINBYTES EMPTY_DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""


def read_pickled_arrays(path: Path) -> dict[str, Floats]:
    """The arrays of a pickled dict, by name, read-only; raises DataError for anything else."""
    content = _content(path)
    try:
        _check_opcodes(content)
        found = _Reader(io.BytesIO(content)).load()
        return dict(_arrays(found))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # what a damaged pickle may raise is not limited to a few types
        reason = ascii(" ".join(str(error).split()) or type(error).__name__)
        raise DataError(f"{path}: damaged, or no pickle of arrays ({reason:.200})") from None


def _content(path: Path) -> bytes:
    with explained(path):
        if not path.is_file():
            raise DataError(f"{path}: found no file, expected a pickle of arrays")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: found more than {MAX_BYTES} bytes, expected a pickle of weights")
    return content


def _check_opcodes(content: bytes) -> None:
    """So that what executing them takes is bounded by the length of the file."""
    names = OPCODES.split()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content), 1):
        if opcode.name not in names:
            raise DataError(f"found opcode {opcode.name}, which no pickle of NumPy arrays needs")
        place = int(argument or 0) if opcode.name == "LONG_BINPUT" else 0  # memory for as many
        if max(place, count) > MAX_OPCODES:
            raise DataError(f"found more than {MAX_OPCODES} opcodes, expected a few arrays")


class _DType:
    """Stands for `numpy.dtype`: notes the type and the byte order."""

    def __init__(self, code: str, align: bool, copy: bool) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def checked(self) -> np.dtype[Any]:
        if self.code not in ("f4", "f8") or self.order not in ("<", ">"):
            raise DataError(f"found type {self.order!r:.20}{self.code!r:.20}, expected f4 or f8")
        return np.dtype(self.order + self.code)


class _Array:
    """Stands for an array in the making, as `_reconstruct` of NumPy returns it."""

    def __init__(self, kind: object, shape: tuple[int, ...], code: bytes) -> None:
        self.array: Floats | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        kind = dtype.checked()
        if min(shape, default=1) < 1 or math.prod(shape) * kind.itemsize != len(content):
            raise DataError(f"found an array of shape {shape} in {len(content)} bytes of {kind}")
        flat = np.frombuffer(content, kind)
        self.array = flat.reshape(shape, order="F" if is_fortran else "C")


ADMITTED: dict[tuple[str, str], object] = {
    ("numpy", "ndarray"): object(),  # only mentioned
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,  # written by NumPy 2
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ADMITTED:
            wanted = ascii(f"{module}.{name}")
            raise DataError(f"found {wanted:.100}, expected NumPy arrays only; nothing was run")
        return ADMITTED[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        raise DataError("found a persistent object, expected NumPy arrays only")


def _arrays(found: object) -> Iterator[tuple[str, Floats]]:
    if not isinstance(found, dict):
        raise DataError(f"found no dict ({type(found).__name__}), expected one of arrays by name")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, _Array) or value.array is None:
            raise DataError(f"found an entry that is no array ({type(value).__name__})")
        yield name, value.array
