"""NumPy's files: read as NumPy reads them, large ones not at all until they are indexed."""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DataError, file_array
from distnet.data.formats.npy import parse_npy, read_named_arrays, read_npy

RNG = np.random.Generator(np.random.Philox(key=1))
ARRAYS = {
    "bytes": RNG.integers(0, 256, (5, 4, 3), np.uint8),
    "floats": RNG.random((5, 2)).astype(">f4"),
    "fortran": np.asfortranarray(RNG.random((5, 4, 3))),
    "text": np.array(["a", "bcd"]),
    "integers": RNG.integers(0, 9, 7),
    "empty": np.zeros((0, 3)),
    "a single number": np.array(3.5),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_one_file(tmp_path, name):
    np.save(tmp_path / "x.npy", ARRAYS[name])
    found = read_npy(tmp_path / "x.npy")
    np.testing.assert_array_equal(found, ARRAYS[name])
    assert found.dtype == ARRAYS[name].dtype and not found.flags.writeable


def test_a_header_of_python_2_is_read_without_a_word(tmp_path):
    content = io.BytesIO()
    np.save(content, ARRAYS["bytes"])
    old = content.getvalue().replace(b"(5, 4, 3), }   ", b"(5L, 4L, 3L), }")
    (tmp_path / "x.npy").write_bytes(old)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), ARRAYS["bytes"])
    assert b"5L" in old


def test_versions_of_the_format(tmp_path):
    for version in ((1, 0), (2, 0)):
        with (tmp_path / "x.npy").open("wb") as file:
            np.lib.format.write_array(file, ARRAYS["bytes"], version)
        np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), ARRAYS["bytes"])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_archives(tmp_path, monkeypatch, save, limit):
    monkeypatch.setattr(file_array, "MEMORY_BYTES", limit)
    save(tmp_path / "x.npz", **ARRAYS)
    found = read_named_arrays(tmp_path / "x.npz")
    assert list(found) == sorted(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
    is_file = isinstance(found["bytes"], file_array.FileArray)
    assert is_file == (save is np.savez and limit == 0)


@pytest.mark.parametrize("kind", ["files", "archive"])
def test_a_directory(tmp_path, kind):
    if kind == "files":
        for name, array in ARRAYS.items():
            np.save(tmp_path / f"{name}.npy", array)
    else:
        np.savez(tmp_path / "x.npz", **ARRAYS)
    (tmp_path / "README.txt").write_text("other files do not matter")
    for hidden in ("._x.npy", "._x.npz"):
        (tmp_path / hidden).write_bytes(b"what macOS writes beside a file on disks of others")
    assert list(read_named_arrays(tmp_path)) == sorted(ARRAYS)


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(file_array, "MEMORY_BYTES", 50)
    np.save(tmp_path / "x.npy", ARRAYS["bytes"])
    found = read_npy(tmp_path / "x.npy")
    assert isinstance(found, file_array.FileArray)
    np.testing.assert_array_equal(found[[3, 0]], ARRAYS["bytes"][[3, 0]])


def failure(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_named_arrays(path) if path.suffix == ".npz" else read_npy(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and message.isprintable() and len(message) < 400
    return message


def test_python_objects_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([print], object), allow_pickle=True)
    np.savez(tmp_path / "x.npz", x=np.array([print], object))
    for name in ("x.npy", "x.npz"):
        assert "found Python objects" in failure(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_every_truncation_is_one_line(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, ARRAYS["bytes"])
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        failure(path)
    failure(tmp_path / f"none{suffix}")


def test_damaged_bytes_are_read_or_one_line(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=ARRAYS["bytes"], b=ARRAYS["integers"])
    content, outcomes = path.read_bytes(), {True: 0, False: 0}
    for _ in range(400):
        damaged = bytearray(content)
        damaged[RNG.integers(len(content))] ^= 1 << int(RNG.integers(8))
        path.write_bytes(damaged)
        try:
            read_named_arrays(path)
            outcomes[True] += 1
        except DataError as error:
            assert str(error).isprintable() and str(path) in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 5


def test_a_header_that_promises_too_much(tmp_path):
    path = tmp_path / "x.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (2**60,)}
        )
    assert "expected 1152921504606847" in failure(path)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(path, "a.npy")
    failure(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "header",
    [
        "(" * 5000,
        "-" * 9000 + "1",
        "[]",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1000000000000)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '|S0', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '<)4', 'fortran_order': False, 'shape': (4,)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 100 + ")}",
    ],
)
def test_headers_that_mean_harm(header):
    """Python's parser reads them, and has its own ways to give up."""
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + b"abc"
    with pytest.raises(DataError, match="the array: "):
        parse_npy(content)


def test_an_array_that_has_come_as_bytes(tmp_path):
    np.save(tmp_path / "x.npy", ARRAYS["fortran"])
    found = parse_npy((tmp_path / "x.npy").read_bytes())
    np.testing.assert_array_equal(found, ARRAYS["fortran"])


def test_two_arrays_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for number in range(2):
            content = io.BytesIO()
            np.save(content, np.full(3, number))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # zipfile sees it too
                archive.writestr("x.npy", content.getvalue())
    with pytest.raises(DataError, match="found two arrays called x, expected one"):
        read_named_arrays(tmp_path / "x.npz")
