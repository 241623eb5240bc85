"""A folder of pictures for each class."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DataError, load_dataset
from distnet.data.sets import picture_folders

Image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
RNG = np.random.Generator(np.random.Philox(key=10))


def save(path: Path, pixels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def colour(h: int = 6, w: int = 5) -> np.ndarray:
    return RNG.integers(0, 256, (h, w, 3), np.uint8)


def test_folders_by_class(tmp_path):
    cats = [save(tmp_path / "mine" / "cat" / f"{i}.png", colour()) for i in range(3)]
    dogs = [save(tmp_path / "mine" / "dog" / "deep" / f"{i}.bmp", colour()) for i in range(2)]
    (tmp_path / "mine" / "cat" / "notes.txt").write_text("not a picture")
    save(tmp_path / "mine" / ".hidden" / "x.png", colour())
    save(tmp_path / "mine" / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png", colour())
    data = load_dataset(data_dir=tmp_path / "mine")
    assert (data.name, data.classes, data.input_shape) == ("mine", ("cat", "dog"), (3, 6, 5))
    np.testing.assert_array_equal(data.train.inputs.transpose(0, 2, 3, 1), cats + dogs)
    assert data.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert data.notes == (
        "labels cat, dog are classes 0 to 1, in this order",
        "there are no test data",
        "not read: 1 file, such as cat/notes.txt",
    )


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_as_linux_and_as_macos_write_them(tmp_path, form):
    """Decomposed, they would have another order, and a network would not know them."""
    names = ["zebra", "âne", "élan"]
    saved = []
    for name in names:
        folder = tmp_path / unicodedata.normalize(form, name)
        pair = [folder / unicodedata.normalize(form, f"{each}.png") for each in ("z", "é")]
        saved += [save(path, colour()) for path in pair]
        (folder / "._z.png").write_bytes(b"what macOS writes beside a file on disks of others")
    data = load_dataset(data_dir=tmp_path)
    assert data.classes == tuple(names)
    np.testing.assert_array_equal(data.train.inputs.transpose(0, 2, 3, 1), saved)


def test_what_is_not_read_is_told(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name / "0.png", colour())
        save(tmp_path / "test" / name / "0.png", colour())
        save(tmp_path / "val" / name / "0.png", colour())
    (tmp_path / "train" / "bird").mkdir()
    (tmp_path / "train" / "bird" / "0.heic").write_bytes(b"a picture of another kind")
    notes = load_dataset(data_dir=tmp_path).notes
    assert notes[1:] == ("no pictures in bird", "not read: 3 files, such as train/bird/0.heic")


def test_a_whole_disk_is_no_folder_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_folders, "MOST_OTHERS", 10)
    for name in ("cat", "dog"):
        save(tmp_path / name / "0.png", colour())
    for i in range(11):
        (tmp_path / "cat" / f"{i}.txt").touch()
    message = "found 1 picture among 11 other files and folders, expected the pictures of a class"
    with pytest.raises(DataError, match=f"cat: {message}"):
        load_dataset(data_dir=tmp_path)
    save(tmp_path / "cat" / "1.png", colour())  # which are many of so few files
    assert load_dataset(data_dir=tmp_path).notes[-1].startswith("not read: 11 files")


def test_a_class_may_be_called_as_a_part_is(tmp_path):
    for name in ("car", "Train"):
        save(tmp_path / name / "0.png", colour())
    assert load_dataset(data_dir=tmp_path).classes == ("Train", "car")


def test_a_stray_picture_makes_no_class_of_the_training_folder(tmp_path):
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name / "0.png", colour())
        save(tmp_path / "test" / name / "0.png", colour())
    save(tmp_path / "train" / "overview.png", colour())
    data = load_dataset(data_dir=tmp_path)
    assert data.classes == ("cat", "dog") and len(data.test.targets) == 2
    assert data.notes[1:] == ("not read: 1 file, such as train/overview.png",)


def test_links_to_folders_are_classes_and_told_if_not_read(tmp_path):
    save(tmp_path / "elsewhere" / "0.png", colour())
    for name in ("cat", "dog"):
        save(tmp_path / "mine" / name / "0.png", colour())
    (tmp_path / "mine" / "bird").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine" / "dog" / "circle").symlink_to(tmp_path / "mine")
    data = load_dataset(data_dir=tmp_path / "mine")
    assert data.classes == ("bird", "cat", "dog") and len(data.train.targets) == 3
    assert data.notes[2:] == ("not read: 2 links to folders, such as cat/more",)


@pytest.mark.parametrize(("largest", "is_told"), [(255, True), (4095, True), (65535, False)])
def test_16_bits_that_hold_less_are_told(tmp_path, largest, is_told):
    grey = np.linspace(0, largest, 30).reshape(6, 5).astype(np.uint16)
    for name in ("a", "b"):
        save(tmp_path / name / "0.png", grey)
    notes = load_dataset(data_dir=tmp_path).notes
    dark = f"no pixel of any picture is brighter than {255 * largest // 65535} of 255"
    assert any(note.startswith(dark) for note in notes) == is_told


@pytest.mark.parametrize(
    ("training", "test"),
    [("train", "test"), ("train", "val"), ("Training", "Testing"), ("TRAIN", "validation")],
)
def test_training_and_test(tmp_path, training, test):
    train = [save(tmp_path / training / str(i) / "x.png", colour()) for i in (10, 2)]
    held = save(tmp_path / test / "10" / "x.png", colour())
    data = load_dataset(data_dir=tmp_path)
    assert data.classes == ("2", "10")  # in the order of numbers
    np.testing.assert_array_equal(data.train.inputs.transpose(0, 2, 3, 1), train)
    np.testing.assert_array_equal(data.test.inputs.transpose(0, 2, 3, 1), [held])
    assert data.train.targets.tolist() == [1, 0] and data.test.targets.tolist() == [1]


def test_grey_pictures_have_one_channel(tmp_path):
    pixels = save(tmp_path / "a" / "x.png", RNG.integers(0, 256, (4, 3), np.uint8))
    assert load_dataset(data_dir=tmp_path).input_shape == (1, 4, 3)
    save(tmp_path / "b" / "x.png", colour(4, 3))
    data = load_dataset(data_dir=tmp_path)
    assert data.input_shape == (3, 4, 3)
    np.testing.assert_array_equal(data.train.inputs[0], [pixels] * 3)


def test_other_sizes_are_scaled_to_the_usual_one(tmp_path):
    for i in range(3):
        save(tmp_path / "a" / f"{i}.png", colour())
    save(tmp_path / "a" / "large.png", np.full((60, 100, 3), 77, np.uint8))
    data = load_dataset(data_dir=tmp_path)
    assert data.input_shape == (3, 6, 5)
    assert (data.train.inputs[3] == 77).all()
    assert data.notes[-1] == "1 of 4 pictures were scaled to 5 × 6"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(30)])
def test_a_damaged_picture_is_named(tmp_path, content):
    save(tmp_path / "a" / "0.png", colour())
    (tmp_path / "a" / "1.png").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(data_dir=tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/a/1.png: cannot be read")


def test_a_picture_that_is_cut_off(tmp_path):
    save(tmp_path / "a" / "0.png", colour(50, 50))
    path = tmp_path / "a" / "0.png"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"0\.png: cannot be read"):
        load_dataset(data_dir=tmp_path)


def test_a_training_folder_without_pictures(tmp_path):
    save(tmp_path / "test" / "a" / "0.png", colour())
    (tmp_path / "train" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="found no pictures, expected a folder of them"):
        load_dataset(data_dir=tmp_path)
