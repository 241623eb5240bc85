"""Whatever lies at a path: which reader takes it, what it is called, what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distnet.data import DATASETS, DataError, file_array, load_dataset
from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES
from distnet.data.sets import mnist

RNG = np.random.Generator(np.random.Philox(key=7))
X, T = RNG.integers(0, 256, (9, 8, 7, 3), np.uint8), np.arange(9) % 3
PARTS = {"train_images": X[:6], "train_labels": T[:6], "test_images": X[6:], "test_labels": T[6:]}


def failure(*arguments, **settings) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(*arguments, **settings)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 500
    return message


def check(data) -> None:
    assert (data.input_shape, data.classes) == ((3, 8, 7), ("0", "1", "2"))
    np.testing.assert_array_equal(data.train.inputs, X[:6].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(data.test.inputs, X[6:].transpose(0, 3, 1, 2))
    assert data.train.targets.tolist() == T[:6].tolist()
    assert data.test.targets.tolist() == T[6:].tolist()


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("train-imgs", "train-target", "t10k-imgs", "t10k-target"),
        ("images", "labels", "test_data", "test_targets"),
    ],
)
@pytest.mark.parametrize("kind", ["archive", "directory", "directory with an archive"])
def test_arrays_of_numpy(tmp_path, names, kind):
    folder = tmp_path / "mine"
    folder.mkdir()
    arrays = dict(zip(names, PARTS.values(), strict=True))
    if kind == "directory":
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        path = folder
    else:
        np.savez(folder / "pictures.npz", **arrays)
        path = folder / "pictures.npz" if kind == "archive" else folder
    for data in (load_dataset(data_dir=path), load_dataset(str(path))):
        check(data)
        assert data.name == ("pictures" if kind == "archive" else "mine")
        assert data.notes == ()
    assert load_dataset("other", path).name == "other"


def test_large_arrays_stay_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(file_array, "MEMORY_BYTES", 100)
    np.savez(tmp_path / "x.npz", **PARTS)
    data = load_dataset(data_dir=tmp_path / "x.npz")
    assert isinstance(data.train.inputs, file_array.FileArray)
    check(data)


@pytest.mark.parametrize("kind", [str, bytes])
def test_arrays_that_are_not_read_are_noted(tmp_path, kind):
    names = np.array(["cat", "dog", "bird"]).astype(kind)
    np.savez(tmp_path / "x.npz", **PARTS, val_images=X, weights=T, class_names=names)
    data = load_dataset(data_dir=tmp_path)
    assert data.classes == ("cat", "dog", "bird")
    assert data.notes == ("not read: val_images, weights",)
    np.savez(tmp_path / "x.npz", **PARTS, classes=names[::-1], class_names=names)
    data = load_dataset(data_dir=tmp_path)
    assert data.classes == ("cat", "dog", "bird") and data.notes == ("not read: classes",)


@pytest.mark.parametrize(
    "labels",
    [T.astype(">i8"), T[:, None], np.eye(3)[T], np.eye(3, dtype=bool)[T], np.array(list("abc"))[T]],
    ids=["integers", "column", "rows", "rows of booleans", "text"],
)
def test_labels_in_a_large_file(tmp_path, monkeypatch, labels):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", labels)
    small = load_dataset(data_dir=tmp_path)
    monkeypatch.setattr(file_array, "MEMORY_BYTES", 0)
    large = load_dataset(data_dir=tmp_path)
    assert isinstance(large.train.inputs, file_array.FileArray)
    assert large.train.targets.tolist() == small.train.targets.tolist() == T.tolist()
    assert (large.classes, large.notes) == (small.classes, small.notes)


def test_training_arrays_alone(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=T)
    data = load_dataset(data_dir=tmp_path)
    assert len(data.test.targets) == 0 and data.notes == ("there are no test data",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X}, "found a, expected train_images and train_labels"),
        ({"train_images": X}, "found train_images, expected"),
        ({k: v for k, v in PARTS.items() if k != "test_labels"}, "expected train_images and"),
        ({**PARTS, "x_train": X}, "found train_images and x_train, expected one of them"),
        ({**PARTS, "train_labels": T[:5]}, "(train_labels): found 5, expected 6"),
        ({**PARTS, "train_images": X[:6].astype(int)}, "(train_images): found int64, expected"),
        (
            {**PARTS, "class_names": np.array("cat")},
            "(class_names): found <U3 of shape (), expected",
        ),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_other_arrays(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    assert message in failure(data_dir=tmp_path / "x.npz")


def write_idx(directory: Path, labels: np.ndarray) -> Path:
    directory.mkdir()
    grey = X[:, :, :, 0]
    for name, array in zip(IDX_FILES, (grey, labels, grey, labels), strict=True):
        (directory / name).write_bytes(format_idx(array.astype(np.uint8)))
    return directory


@pytest.mark.parametrize("name", ["fashion", "my pictures", "v1.2"])
def test_other_idx_files_are_called_by_their_directory(tmp_path, name):
    data = load_dataset("mnist", write_idx(tmp_path / name, T))
    assert (data.name, data.num_classes) == (name, 3)


def test_mnist_in_a_directory_is_recognized(tmp_path):
    packaged = load_dataset()
    arrays = (*packaged.train, *packaged.test)
    for name, array in zip(IDX_FILES, arrays, strict=True):
        (tmp_path / name).write_bytes(format_idx(array[:, 0] if array.ndim == 4 else array))
    data = load_dataset(data_dir=tmp_path)
    assert data.name == "mnist" and data.sha256 == packaged.sha256
    assert data.classes == packaged.classes == mnist.packaged().classes


@pytest.mark.parametrize("labels", [T + 1, T * 10])
def test_labels_from_1_or_with_gaps(tmp_path, labels):
    data = load_dataset(data_dir=write_idx(tmp_path / "x", labels))
    assert data.train.targets.tolist() == T.tolist()
    assert len(data.notes) == 1 and "are classes 0 to 2" in data.notes[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none: found no such directory, expected one with four IDX files"),
        ("file.npy", "file.npy: found no such directory, expected"),
        ("file.txt", "file.txt: found no such directory, expected"),
        ("empty", "empty: found no data set, expected four IDX files like MNIST's, the files of"),
    ],
)
def test_nothing_that_can_be_read(tmp_path, name, message):
    np.save(tmp_path / "file.npy", X)
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    assert message in failure(data_dir=tmp_path / name)


def test_an_unknown_name():
    message = failure("mnits")
    assert message.startswith("found data set 'mnits', expected a path or one of mnist, fashion_")
    assert message.endswith("did you mean mnist?")
    assert "did you mean" not in failure("xyzzy")


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_it_is(name):
    source = DATASETS[name]
    assert "classes" in source.contents and source.licence and source.page
    assert bool(source.files) == bool(source.download)
    for file in source.files:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.folder.startswith("http") and not file.folder.endswith("/")
