"""Fashion-MNIST, KMNIST, QMNIST and EMNIST from files under their published names."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DATASETS, DataError, file_array, load_dataset
from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES
from distnet.data.sets.like_mnist import EMNIST, QMNIST_FILES, emnist_files

RNG = np.random.Generator(np.random.Philox(key=2))
CLASSES = {"balanced": 47, "letters": 26, "digits": 10, "byclass": 62, "bymerge": 47}


def images(n: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, 28, 28), np.uint8)


def write(directory: Path, names: Iterable[str], arrays: Iterable[np.ndarray]) -> Path:
    """Every other file raw, the others gzipped."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, (name, array) in enumerate(zip(names, arrays, strict=True)):
        content = idx_of_integers(array) if name.endswith("-int") else format_idx(array)
        if number % 2:
            (directory / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (directory / name).write_bytes(content)
    return directory


def idx_of_integers(array: np.ndarray) -> bytes:
    header = struct.pack(f">I{array.ndim}I", 0x0C00 | array.ndim, *array.shape)
    return header + array.astype(">i4").tobytes()


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
@pytest.mark.parametrize("where", ["data_dir", "cache_dir"])
def test_the_four_files(tmp_path, name, where):
    x, t = images(20), np.arange(20, dtype=np.uint8) % 10
    write(tmp_path / name, IDX_FILES, (x[:15], t[:15], x[15:], t[15:]))
    path = tmp_path / name if where == "data_dir" else tmp_path
    data = load_dataset(name, **{where: path})
    assert (data.name, data.num_classes, data.input_shape) == (name, 10, (1, 28, 28))
    assert data.notes == ()
    np.testing.assert_array_equal(data.train.inputs[:, 0], x[:15])
    np.testing.assert_array_equal(data.test.inputs[:, 0], x[15:])
    assert data.train.targets.tolist() == t[:15].tolist()
    assert data.test.targets.tolist() == t[15:].tolist()


def test_names_of_classes(tmp_path):
    write(tmp_path, IDX_FILES, (images(2), np.array([9, 0], np.uint8)) * 2)
    assert load_dataset("fashion_mnist", tmp_path).classes[9] == "Ankle boot"
    assert load_dataset("kmnist", tmp_path).classes[:2] == ("お", "き")


def test_qmnist_takes_the_digit_of_eight_integers(tmp_path):
    x, numbers = images(12), RNG.integers(0, 5000, (12, 8))
    numbers[:, 0] = np.arange(12) % 10
    write(tmp_path, QMNIST_FILES, (x[:10], numbers[:10], x[10:], numbers[10:]))
    data = load_dataset("qmnist", tmp_path)
    assert load_dataset(data_dir=tmp_path).name == data.name == "qmnist"
    assert data.train.targets.tolist() == list(range(10)) and data.test.targets.tolist() == [0, 1]
    assert data.train.targets.dtype == np.uint8
    np.testing.assert_array_equal(data.train.inputs[:, 0], x[:10])


def write_emnist(directory: Path, split: str, x: np.ndarray) -> np.ndarray:
    """Each class once in training, then 5 images for the test; stored column by column."""
    k = CLASSES[split]
    labels = np.arange(k + 5, dtype=np.uint8) % k + (split == "letters")
    x = x.transpose(0, 2, 1)
    write(directory, emnist_files(split), (x[:k], labels[:k], x[k:], labels[k:]))
    return labels


@pytest.mark.parametrize("folder", ["", "gzip"])
@pytest.mark.parametrize("split", CLASSES)
def test_emnist_is_turned_back(tmp_path, split, folder):
    k = CLASSES[split]
    x = images(k + 5)
    labels = write_emnist(tmp_path / folder, split, x)
    data = load_dataset(f"emnist_{split}", tmp_path)
    assert data.num_classes == k == len(EMNIST[split].load.args[1])
    np.testing.assert_array_equal(data.train.inputs[:, 0], x[:k])
    np.testing.assert_array_equal(data.test.inputs[:, 0], x[k:])
    first = labels.min()
    assert data.train.targets.tolist() == (labels[:k] - first).tolist()
    assert data.notes == (
        ("labels 1, 2, 3 ... 26 are classes 0 to 25, in this order",) if first else ()
    )


def test_letters_and_digits_have_names(tmp_path):
    assert EMNIST["byclass"].load.args[1][35:38] == ("Z", "a", "b")
    assert EMNIST["balanced"].load.args[1][34:38] == ("Y", "Z", "a", "b")


@pytest.mark.parametrize("folder", ["", "gzip"])
def test_emnist_is_recognized_by_its_names(tmp_path, folder):
    x = images(31)
    write_emnist(tmp_path / folder, "letters", x)
    data = load_dataset("mnist", tmp_path)
    assert data.name == "emnist_letters" and data.classes[25] == "z"
    np.testing.assert_array_equal(data.train.inputs[:, 0], x[:26])
    write_emnist(tmp_path / folder, "balanced", images(52))
    with pytest.raises(DataError, match=r"emnist_balanced, emnist_letters, expected one .*--data"):
        load_dataset(data_dir=tmp_path)
    assert load_dataset("emnist_letters", tmp_path).num_classes == 26


def test_the_large_split_stays_in_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(file_array, "MEMORY_BYTES", 1000)
    x = images(67)
    write_emnist(tmp_path, "byclass", x)
    data = load_dataset("emnist_byclass", tmp_path)
    assert isinstance(data.train.inputs, file_array.FileArray)
    np.testing.assert_array_equal(data.train.inputs[np.array([3, 61])][:, 0], x[[3, 61]])
    in_memory = np.ascontiguousarray(data.train.inputs)
    assert (
        data.sha256
        == data.__class__(
            "copy", data.train._replace(inputs=in_memory), data.test, data.classes
        ).sha256
    )


@pytest.mark.parametrize("name", [name for name in DATASETS if DATASETS[name].files])
def test_what_is_missing_is_one_line_with_the_remedy(tmp_path, name):
    with pytest.raises(DataError, match=f"expected the files of {name}; give --data-dir"):
        load_dataset(name, tmp_path / "none")
    with pytest.raises(DataError, match=f"`distnet datasets fetch {name}`"):
        load_dataset(name, cache_dir=tmp_path)
    with pytest.raises(DataError, match="found no data_dir"):
        load_dataset(name)
    with pytest.raises(DataError, match="found no file"):
        load_dataset(name, tmp_path)
