"""CIFAR-10 and CIFAR-100 in both formats, the Python one as Python 2 pickled it."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DataError, load_dataset

RNG = np.random.Generator(np.random.Philox(key=8))
N = 7  # images in a file
X = RNG.integers(0, 256, (6, N, 3072), np.uint8)
T10 = RNG.integers(0, 10, (6, N))
T100 = RNG.integers(0, 100, (2, N))
NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
NAMES100 = [f"thing{i}" for i in range(100)]


def write_binary_10(directory: Path) -> Path:
    directory.mkdir()
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] + ["test_batch.bin"]
    for name, x, t in zip(names, X, T10, strict=True):
        (directory / name).write_bytes(np.column_stack([t.astype(np.uint8), x]).tobytes())
    (directory / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    return directory


def write_binary_100(directory: Path) -> Path:
    directory.mkdir()
    for name, x, t in zip(("train.bin", "test.bin"), X, T100, strict=False):
        rows = np.column_stack([t.astype(np.uint8) // 5, t.astype(np.uint8), x])
        (directory / name).write_bytes(rows.tobytes())
    (directory / "fine_label_names.txt").write_text("\n".join(NAMES100) + "\n")
    return directory


class Python2Pickler:
    """Writes a dict of text, lists and byte arrays with the opcodes of Python 2's protocol 2."""

    def text(self, text: bytes) -> bytes:
        if len(text) < 256:
            return b"U" + bytes([len(text)]) + text
        return b"T" + struct.pack("<i", len(text)) + text

    def number(self, number: int) -> bytes:
        return b"K" + bytes([number]) if number < 256 else b"J" + struct.pack("<i", number)

    def list(self, items: list) -> bytes:
        return b"](" + b"".join(self.any(item) for item in items) + b"e"

    def array(self, array: np.ndarray) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        unknown = b"J" + struct.pack("<i", -1)
        state = b"(K\x03U\x01|NNN" + 2 * unknown + b"K\x00tb"
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R" + state
        shape = self.number(len(array)) + self.number(array.shape[1]) + b"\x86"
        return made + b"(K\x01" + shape + dtype + b"\x89" + self.text(array.tobytes()) + b"tb"

    def any(self, value: object) -> bytes:
        match value:
            case str():
                return self.text(value.encode())
            case list():
                return self.list(value)
            case np.ndarray():
                return self.array(value)
        return self.number(int(value))

    def dumps(self, table: dict) -> bytes:
        entries = b"".join(self.text(k.encode()) + self.any(v) for k, v in table.items())
        return b"\x80\x02}(" + entries + b"u."


def table(x: np.ndarray, t: np.ndarray, labels: str) -> dict:
    files = [f"file_{i}.png" for i in range(N)]
    return {"batch_label": "a batch", labels: t.tolist(), "data": x, "filenames": files}


def python2(table: dict) -> bytes:
    return Python2Pickler().dumps(table)


def python3(table: dict) -> bytes:
    return pickle.dumps(table, 4)


def write_python(directory: Path, name: str, dumps) -> Path:
    directory.mkdir()
    if name == "cifar10":
        files, labels, targets = [f"data_batch_{i}" for i in range(1, 6)], "labels", T10
        numbers = {"num_cases_per_batch": 10_000, "num_vis": 3072}  # as published
        names_file, names = "batches.meta", {"label_names": NAMES10, **numbers}
        files.append("test_batch")
    else:
        files, labels, targets = ["train", "test"], "fine_labels", T100
        names_file, names = "meta", {"fine_label_names": NAMES100, "coarse_label_names": ["a"]}
    for file, x, t in zip(files, X, targets, strict=False):
        (directory / file).write_bytes(dumps(table(x, t, labels)))
    (directory / names_file).write_bytes(dumps(names))
    return directory


def check(data, name: str) -> None:
    x = X.reshape(6, N, 3, 32, 32)
    t, split, names = (T10, 5, NAMES10) if name == "cifar10" else (T100, 1, NAMES100)
    assert (data.name, data.input_shape, data.classes) == (name, (3, 32, 32), tuple(names))
    np.testing.assert_array_equal(data.train.inputs, np.concatenate(x[:split]))
    np.testing.assert_array_equal(data.test.inputs, x[split])
    np.testing.assert_array_equal(data.train.targets, np.concatenate(t[:split]))
    np.testing.assert_array_equal(data.test.targets, t[split])


@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "mine"])
def test_binary_cifar10(tmp_path, folder):
    directory = write_binary_10(tmp_path / folder)
    check(load_dataset("cifar10", directory), "cifar10")
    if folder != "mine":
        check(load_dataset("cifar10", tmp_path), "cifar10")


def test_binary_cifar100_takes_the_fine_label(tmp_path):
    write_binary_100(tmp_path / "cifar-100-binary")
    check(load_dataset("cifar100", tmp_path), "cifar100")
    check(load_dataset(data_dir=tmp_path), "cifar100")


@pytest.mark.parametrize("dumps", [python2, python3])
@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_python_files(tmp_path, name, folder, dumps):
    directory = write_python(tmp_path / folder, name, dumps)
    check(load_dataset(name, tmp_path), name)
    for path in (tmp_path, directory):  # and without its name
        check(load_dataset(data_dir=path), name)


def test_the_writer_of_these_tests_writes_pickles():
    written = python2(table(X[0], T10[0], "labels"))
    found = pickle.loads(written, encoding="latin1")
    assert found["labels"] == T10[0].tolist() and found["filenames"][3] == "file_3.png"
    np.testing.assert_array_equal(found["data"], X[0])


def test_without_the_file_of_names_the_classes_are_numbered(tmp_path):
    directory = write_binary_100(tmp_path / "x")
    (directory / "fine_label_names.txt").unlink()
    rows = np.zeros((100, 3074), np.uint8)
    rows[:, 1] = np.arange(100)
    (directory / "train.bin").write_bytes(rows.tobytes())
    assert load_dataset("cifar100", directory).classes == tuple(map(str, range(100)))


class Evil:
    def __reduce__(self):
        return print, ("it ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": X[0], "labels": Evil()}, "found 'builtins.print', expected arrays only"),
        ({"labels": [1] * N}, "found no array 'data'"),
        ({"data": X[0][:, :5], "labels": [1] * N}, "found no array 'data'"),
        ({"data": X[0]}, "found no list 'labels'"),
        ({"data": X[0], "labels": ["a"] * N}, "found no list 'labels'"),
        ({"data": X[0], "labels": [1]}, "found 1 labels, expected 7"),
        ({"data": X[0] * 0.5, "labels": [1] * N}, "found no array 'data' of bytes"),
        ({"data": X[0], "labels": [11] * N}, "such as 11, expected those of the 10 names"),
        ([X[0]], "found no dict (list)"),
    ],
    ids=lambda value: ascii(value)[-40:],
)
def test_other_pickles_are_one_line(tmp_path, capsys, content, message):
    directory = write_python(tmp_path / "x", "cifar10", python3)
    (directory / "data_batch_2").write_bytes(python3(content))
    with pytest.raises(DataError) as caught:
        load_dataset("cifar10", directory)
    assert str(caught.value).isprintable() and message in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", bytes(3072), bytes(3074)])
def test_a_damaged_binary_file(tmp_path, content):
    directory = write_binary_10(tmp_path / "x")
    (directory / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3\.bin: found \d+ bytes, expected a multiple"):
        load_dataset("cifar10", directory)


def test_a_missing_batch(tmp_path):
    directory = write_binary_10(tmp_path / "x")
    (directory / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: cannot be read"):
        load_dataset("cifar10", directory)
