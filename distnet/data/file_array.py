"""Arrays that stay in their file: samples are read when they are asked for.

A file of up to `MEMORY_BYTES` is read into memory. Of a larger one, which may be larger than
memory, an index array fetches its samples with one system call each. That is not slower than a
memory map for samples of a few hundred bytes or more, the processes of a node share the system's
file cache just the same, and a file that is cut off or written anew during a run ends it with a
line, where a map would end it with SIGBUS.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape, StoredArray
from distnet.data.errors import DataError, FileChangedError, explained

MEMORY_BYTES = 64 << 20  # MNIST's 47 MB and a process do not mind each other
MOST_BYTES = 1 << 30  # of a call: Linux reads less than 2 GiB at once, macOS refuses more


def file_array(path: Path, shape: Shape, dtype: DTypeLike, offset: int = 0) -> Array:
    """The array at byte `offset` of a file, in C order, read-only, in memory if it is small.

    A large one is a `FileArray`: it has what an array has that is indexed and looked at, no more.
    Raises DataError if the file is too short or cannot be read.
    """
    with explained(path):
        stored = FileArray(path, shape, np.dtype(dtype), offset)
    return stored[:] if stored.nbytes <= MEMORY_BYTES else cast(Array, stored)


class _File(io.FileIO):
    """Closed, without a warning, with the last array that reads it."""

    def __del__(self) -> None:
        self.close()


class FileArray(StoredArray):
    """Samples `(N, ...)` in a file, to be indexed along the first axis.

    `images[indices]`, `images[a:b]` and `images[i]` are new arrays. `take`, and `reshape` and
    `transpose` of the axes of a sample, give another view of the same file.
    """

    def __init__(self, path: Path, shape: Shape, dtype: np.dtype[Any], offset: int) -> None:
        self.path, self.dtype, self._offset = path, dtype, offset
        self._file = _File(path)
        self._stamp = self._current_stamp()
        self._sample, self._order = shape[1:], tuple(range(len(shape)))
        self._num_samples = shape[0]
        self._places: Array | None = None  # of the samples in the file; None: all in their order
        size = self._stamp[0]
        if size < offset + self.nbytes:
            raise DataError(f"{path}: found {size} bytes, expected {offset + self.nbytes}")

    @property
    def shape(self) -> Shape:
        stored = (len(self), *self._sample)
        return tuple(stored[axis] for axis in self._order)

    @property
    def ndim(self) -> int:
        return len(self._order)

    @property
    def size(self) -> int:
        return len(self) * math.prod(self._sample)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self._num_samples

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def reshape(self, *shape: int) -> FileArray:
        """The same samples in another shape, which begins with their number."""
        in_order = self._order == tuple(range(self.ndim))
        if not in_order or shape[0] != len(self) or math.prod(shape) != self.size:
            raise ValueError(f"found an array {self.shape}, expected one that can be {shape}")
        return self._view(_sample=shape[1:], _order=tuple(range(len(shape))))

    def transpose(self, *axes: int) -> FileArray:
        """The same samples with their axes in another order; the first one stays."""
        if axes[:1] != (0,) or sorted(axes) != list(range(self.ndim)):
            raise ValueError(f"found axes {axes}, expected those of {self.shape}, 0 first")
        return self._view(_order=tuple(self._order[axis] for axis in axes))

    def take(self, indices: Array) -> FileArray:
        """Some of the samples, still in the file."""
        places = self._in_file(indices)
        return self._view(_places=places, _num_samples=len(places))

    def _view(self, **changes: object) -> FileArray:
        view = object.__new__(FileArray)
        view.__dict__.update(self.__dict__, **changes)
        return view

    def __getitem__(self, key: Any) -> Array:
        if isinstance(key, tuple):  # the samples first, then what is wanted of each
            return self[key[0]][(slice(None), *key[1:])]
        self._check_unchanged()
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1 and self._places is None:
                return self._delivered(self._read([(start, max(0, stop - start))]))
            key = np.arange(start, stop, step)
        places = self._in_file(key)
        rows = self._read([(int(place), 1) for place in places.ravel()])
        return self._delivered(rows).reshape(*places.shape, *self.shape[1:])

    def _in_file(self, key: Any) -> Array:
        """Which samples of the file are meant; IndexError as NumPy has it."""
        indices = np.asarray(key)
        if indices.dtype == np.bool_:
            (indices,) = np.nonzero(indices)
        indices = indices.astype(np.int64, copy=False)
        wrong = (indices < -len(self)) | (indices >= len(self))
        if wrong.any():
            raise IndexError(f"found index {indices[wrong][0]}, expected less than {len(self)}")
        indices = np.where(indices < 0, indices + len(self), indices)
        return indices if self._places is None else self._places[indices]

    def _read(self, runs: list[tuple[int, int]]) -> Array:
        """Runs of samples, (first, how many) each, one after the other, as they are stored."""
        rows = np.empty((sum(count for _, count in runs), *self._sample), self.dtype)
        row_bytes = math.prod(self._sample) * self.dtype.itemsize
        content, place = rows.reshape(-1).view(np.uint8).data, 0
        for first, count in runs:
            end = place + count * row_bytes
            offset = self._offset + first * row_bytes
            while place < end:  # a call may read less than it was asked for
                num_bytes = self._read_at(offset, content[place:end])
                place, offset = place + num_bytes, offset + num_bytes
        return rows

    def _read_at(self, offset: int, target: memoryview) -> int:
        with explained(self.path):
            num_bytes = os.preadv(self._file.fileno(), [target[:MOST_BYTES]], offset)
        if num_bytes == 0:
            raise self._changed()
        return num_bytes

    def _delivered(self, rows: Array) -> Array:
        rows = rows.transpose(self._order)
        rows.flags.writeable = False
        return rows

    def _current_stamp(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def _check_unchanged(self) -> None:
        if self._current_stamp() != self._stamp:
            raise self._changed()

    def _changed(self) -> FileChangedError:
        return FileChangedError(
            f"{self.path}: found a file that was changed after it was opened, expected the same "
            "one until the end of the run; start again"
        )
