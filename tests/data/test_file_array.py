"""Arrays that stay in their file: the same as in memory, and a line when the file is changed."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DataError, file_array
from distnet.data.file_array import FileArray

SHAPE = (20, 3, 4, 5)
HEADER = b"seven b"


@pytest.fixture
def array() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=5)).random(SHAPE).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path, array: np.ndarray) -> Path:
    (tmp_path / "x.bin").write_bytes(HEADER + array.tobytes())
    return tmp_path / "x.bin"


@pytest.fixture
def stored(path: Path, monkeypatch: pytest.MonkeyPatch) -> FileArray:
    monkeypatch.setattr(file_array, "MEMORY_BYTES", 100)
    opened = file_array.file_array(path, SHAPE, np.float32, len(HEADER))
    assert isinstance(opened, FileArray)
    return opened


def taken(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return array.take(indices, axis=0) if isinstance(array, np.ndarray) else array.take(indices)


KEYS = [
    0,
    -1,
    np.int64(3),
    slice(None),
    slice(3, 7),
    slice(7, 3),
    slice(None, None, 3),
    slice(None, None, -1),
    slice(18, 100),
    np.array([3, 3, 0, 19, -1]),
    np.array([], np.int64),
    [1, 2],
    np.arange(20) % 3 == 0,
    (slice(2, 5), 1),
    (np.array([4, 2]), slice(None), slice(1, 3)),
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a.reshape(20, 12, 5),
        lambda a: a.transpose(0, 2, 3, 1),
        lambda a: a.reshape(20, 1, 60).transpose(0, 2, 1),
        lambda a: a.transpose(0, 2, 3, 1).transpose(0, 3, 2, 1),
        lambda a: taken(taken(a, np.r_[19:-1:-1, 3, 3]), np.r_[0:18, -1, 1]),
        lambda a: taken(a.transpose(0, 3, 1, 2), np.arange(20)[::-1]),
        lambda a: taken(a, np.arange(20)[::-1]).reshape(20, 15, 4),
    ],
)
def test_is_indexed_as_in_memory(stored, array, key, view):
    expected, found = view(array)[key], view(stored)[key]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert not found.flags.writeable
    assert view(stored).shape == view(array).shape and view(stored).ndim == view(array).ndim


def test_says_how_large_it_is(stored, array):
    assert (len(stored), stored.size, stored.nbytes) == (20, array.size, array.nbytes)
    np.testing.assert_array_equal(np.asarray(stored), array)


@pytest.mark.parametrize("key", [20, -21, [20], np.array([0, -21])], ids=repr)
def test_an_index_that_is_not_there(stored, key):
    with pytest.raises(IndexError):
        stored[key]


def test_other_views_are_refused(stored):
    with pytest.raises(ValueError, match="0 first"):
        stored.transpose(1, 0, 2, 3)
    with pytest.raises(ValueError, match="expected one that can be"):
        stored.reshape(20, 7)
    with pytest.raises(ValueError, match="expected one that can be"):
        stored.transpose(0, 2, 1, 3).reshape(20, 60)


def test_a_small_file_is_in_memory_and_may_change(path, array):
    loaded = file_array.file_array(path, SHAPE, np.float32, len(HEADER))
    path.write_bytes(b"")
    assert type(loaded) is np.ndarray and not loaded.flags.writeable
    np.testing.assert_array_equal(loaded, array)


def test_a_short_file(path):
    with pytest.raises(DataError, match=r"x\.bin: found 4807 bytes, expected 4808"):
        file_array.file_array(path, SHAPE, np.float32, len(HEADER) + 1)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="none: cannot be read"):
        file_array.file_array(tmp_path / "none", SHAPE, np.float32)


@pytest.mark.parametrize("content", [b"", b"short", bytes(4807)], ids=["empty", "short", "other"])
def test_a_file_written_anew_is_one_line(stored, path, content):
    assert stored[3].shape == SHAPE[1:]
    os.utime(path, ns=(0, 0))  # or the clock may be too coarse to show the change
    path.write_bytes(content)
    with pytest.raises(DataError, match="found a file that was changed after it was opened"):
        stored[np.array([3, 4])]


def test_a_file_cut_off_between_looking_and_reading(stored, path, monkeypatch):
    monkeypatch.setattr(FileArray, "_check_unchanged", lambda self: os.truncate(path, 100))
    with pytest.raises(DataError, match="found a file that was changed"):
        stored[:]


def test_a_file_replaced_or_deleted_does_not_matter(stored, path, array):
    path.with_name("new").write_bytes(b"")
    os.replace(path.with_name("new"), path)
    np.testing.assert_array_equal(stored[5:7], array[5:7])
    path.unlink()
    np.testing.assert_array_equal(stored[[1]], array[[1]])


def test_pieces_are_joined(stored, array, monkeypatch):
    """The system may read less than it was asked for."""
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, b, offset: read(fd, [b[0][:7]], offset))
    np.testing.assert_array_equal(stored[:], array)


def test_a_call_asks_for_no_more_than_every_system_reads(stored, array, monkeypatch):
    """macOS refuses 2 GiB and more."""
    read, sizes = os.preadv, []

    def preadv(file, buffers, offset):
        sizes.append(len(buffers[0]))
        return read(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(file_array, "MOST_BYTES", 1000)
    np.testing.assert_array_equal(stored[:], array)
    assert sizes == [1000] * (array.nbytes // 1000) + [array.nbytes % 1000]


def test_the_file_is_closed_with_the_last_view(path):
    stored = FileArray(path, SHAPE, np.dtype(np.float32), len(HEADER))
    number, view = stored._file.fileno(), stored.transpose(0, 2, 3, 1)
    del stored
    assert view[0].shape == (4, 5, 3)
    del view  # a warning about an open file would be an error here
    with pytest.raises(OSError):
        os.fstat(number)


def test_cannot_be_copied(stored):
    """A copy would share a descriptor that one of the two closes."""
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(stored)
