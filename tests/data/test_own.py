"""Data sets of arrays: labels of any kind, images of any form, and what is said about them."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.data import DataError, Dataset, dataset_from_arrays
from distnet.data.classes import mapped_labels

RNG = np.random.Generator(np.random.Philox(key=6))
IMAGES = RNG.integers(0, 256, (6, 8, 7), np.uint8)
STRINGS = np.dtypes.StringDType(na_object=None)


def refusal(*arguments, **settings) -> str:
    with pytest.raises(DataError) as caught:
        dataset_from_arrays(*arguments, **settings)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


def of_labels(labels: object, test_labels: object = None, **settings) -> Dataset:
    arguments = () if test_labels is None else (IMAGES[: len(test_labels)], test_labels)
    return dataset_from_arrays(IMAGES[: len(labels)], labels, *arguments, **settings)


def test_training_and_test_data():
    data = dataset_from_arrays(IMAGES, [0, 1, 2] * 2, IMAGES[:3], [2, 1, 0], name="mine")
    assert (data.name, data.num_classes, data.input_shape) == ("mine", 3, (1, 8, 7))
    assert (data.classes, data.notes) == (("0", "1", "2"), ())
    np.testing.assert_array_equal(data.train.inputs[:, 0], IMAGES)
    np.testing.assert_array_equal(data.test.inputs[:, 0], IMAGES[:3])
    assert data.train.targets.tolist() == [0, 1, 2] * 2
    assert data.test.targets.tolist() == [2, 1, 0]
    assert np.shares_memory(data.train.inputs, IMAGES)


def test_without_test_data():
    data = of_labels([0, 1, 2, 0, 1, 2])
    assert data.test.inputs.shape == (0, 1, 8, 7) and data.test.targets.shape == (0,)
    assert data.notes == ("there are no test data",)
    assert len(data.sha256) == 64


def test_channels_last_in_colour():
    colour = RNG.random((6, 8, 7, 3))
    data = dataset_from_arrays(colour, [0, 1] * 3, colour, [0, 1] * 3)
    np.testing.assert_array_equal(data.train.inputs, colour.transpose(0, 3, 1, 2))
    data = dataset_from_arrays(RNG.random((6, 8, 7, 4)), [0, 1] * 3, layout="NHWC")
    assert data.input_shape == (4, 8, 7)


@pytest.mark.parametrize(
    ("labels", "mapped", "classes", "note"),
    [
        ([1, 2, 3, 1], [0, 1, 2, 0], ("1", "2", "3"), "labels 1, 2, 3 are classes 0 to 2"),
        ([0, 9, 4, 0], [0, 2, 1, 0], ("0", "4", "9"), "labels 0, 4, 9 are classes 0 to 2"),
        ([-1, 1, 1], [0, 1, 1], ("-1", "1"), "labels -1, 1 are classes 0 to 1"),
        ([True, False], [1, 0], ("False", "True"), "labels False, True are classes 0 to 1"),
        (["dog", "cat"], [1, 0], ("cat", "dog"), "labels cat, dog are classes 0 to 1"),
        (["10", "9", "x"], [1, 0, 2], ("9", "10", "x"), "labels 9, 10, x are classes 0 to 2"),
        (
            np.array(["dog", "cat"], STRINGS),
            [1, 0],
            ("cat", "dog"),
            "labels cat, dog are classes 0 to 1",
        ),
        ([b"dog", b"cat"], [1, 0], ("cat", "dog"), "labels cat, dog are classes 0 to 1"),
        (np.eye(3)[[2, 0, 1]], [2, 0, 1], ("0", "1", "2"), None),
        (np.eye(3, dtype=bool)[[2, 0, 1]], [2, 0, 1], ("0", "1", "2"), None),
        ([[0], [1]], [0, 1], ("0", "1"), None),
        (
            [10, 20, 30, 40, 50, 60],
            [0, 1, 2, 3, 4, 5],
            ("10", "20", "30", "40", "50", "60"),
            "labels 10, 20, 30 ... 60 are classes 0 to 5",
        ),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_labels_of_any_kind_become_0_to_k(labels, mapped, classes, note):
    data = of_labels(labels, labels)
    assert data.train.targets.tolist() == data.test.targets.tolist() == mapped
    assert data.train.targets.dtype == np.uint8
    assert data.classes == classes
    assert data.notes == (() if note is None else (f"{note}, in this order",))


def test_classes_of_both_parts():
    data = of_labels([3, 1], [2, 1])
    assert data.train.targets.tolist() == [2, 0] and data.test.targets.tolist() == [1, 0]
    assert data.classes == ("1", "2", "3")
    assert data.notes[1:] == ("the training data have no samples of 2, which the test data have",)
    assert len(of_labels(["Cat", "dog"], ["cat", "dog"]).notes) == 2


def test_a_mask_without_true_has_two_classes():
    (labels,), classes, _ = mapped_labels([np.zeros(3, bool)])
    assert labels.tolist() == [0, 0, 0] and len(classes) == 2


def test_rows_with_a_single_1_say_how_many_classes_there_are():
    (labels,), classes, notes = mapped_labels([np.eye(5)[[0, 3, 3]]])
    assert labels.tolist() == [0, 3, 3] and classes == tuple("01234") and notes == ()


def test_47_and_300_classes():
    data = dataset_from_arrays(
        np.zeros((47, 4, 4)), np.arange(47), classes=[f"c{i}" for i in range(47)]
    )
    assert data.num_classes == 47 and data.classes[46] == "c46"
    data = dataset_from_arrays(np.zeros((300, 4, 4)), np.arange(300)[::-1] + 7)
    assert data.num_classes == 300 and data.train.targets.dtype == np.uint16
    assert data.train.targets.tolist() == list(range(300))[::-1]


NAMES = ["T-shirt", "Trouser", "Bag"]


@pytest.mark.parametrize(
    ("labels", "mapped"),
    [
        ([0, 2, 1], [0, 2, 1]),
        ([1, 1, 0], [1, 1, 0]),  # a class that does not occur has its place
        ([1, 2, 3], [0, 1, 2]),
        (["Bag", "T-shirt", "Bag"], [2, 0, 2]),
    ],
)
def test_names_of_classes(labels, mapped):
    data = of_labels(labels, classes=NAMES)
    assert data.train.targets.tolist() == mapped and data.classes == tuple(NAMES)


def test_names_of_classes_may_be_the_numbers_that_labels_are():
    data = of_labels([5, 6, 5], classes=["6", "5"])
    assert data.train.targets.tolist() == [1, 0, 1] and data.classes == ("6", "5")
    data = of_labels([5, 8, 5], classes=list("23456789"))  # with classes that do not occur
    assert [data.classes[place] for place in data.train.targets] == ["5", "8", "5"]
    data = of_labels(np.eye(2)[[0, 1, 1]], classes=["1", "0"])  # columns are places
    assert data.train.targets.tolist() == [0, 1, 1] and data.classes == ("1", "0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(classes=["a", "b"]),
            "train_labels: found 3 classes, such as 2, expected",
        ),
        (dict(classes=["a", "a", "b"]), "expected different names"),
        (
            dict(classes=["0", "2", "1"]),
            "found label 1 and class names 0, 2, 1, where it is one name and the place of another",
        ),
        (dict(classes=[]), "expected different names"),
        (dict(test_images=IMAGES), "found test images without test labels or the reverse"),
        (dict(test_labels=[1]), "found test images without test labels or the reverse"),
        (
            dict(test_images=IMAGES[:, 1:], test_labels=[0] * 6),
            "test_images: found images (1, 7, 7), expected (1, 8, 7) as for training",
        ),
        (dict(test_images=IMAGES, test_labels=[0]), "test_labels: found 1, expected 6"),
        (dict(test_images=IMAGES, test_labels=["a"] * 6), "test_labels: found text and numbers"),
        (dict(test_images=IMAGES * np.nan, test_labels=[0] * 6), "test_images: the data hold NaN"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_does_not_fit_is_one_line(settings, message):
    assert message in refusal(IMAGES, [0, 1, 2] * 2, **settings)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, [0, 1], "train_labels: found 2, expected 6, one for each image"),
        (IMAGES.astype(int), [0] * 6, "train_images: found int64, expected uint8"),
        (IMAGES, [0.5] * 6, "train_labels: found float64 of shape (6,)"),
        (IMAGES[0], [0] * 6, "train_labels: found 6, expected 8"),
        (IMAGES[:0], [], "train_images: found an empty array"),
        (IMAGES.reshape(6, 8, 7, 1, 1), [0] * 6, "train_images: found shape (6, 8, 7, 1, 1)"),
        (IMAGES, [], "train_labels: found float64 of shape (0,)"),
        (IMAGES, ["a\nb", "c"] * 3, r"train_labels: found class 'a\nb', expected text on a line"),
        (IMAGES, ["a", "\udcff"] * 3, r"train_labels: found class '\udcff', expected text on a"),
        (IMAGES, np.array(["a", None] * 3, STRINGS), "train_labels: found None at place 1"),
        (IMAGES, ["a", float("nan")] * 3, "train_labels: found nan at place 1, expected text"),
        (IMAGES, ["a", 1] * 3, "train_labels: found 1 at place 1, expected text throughout"),
        (IMAGES, [b"\xe9", b"\xe8"] * 3, r"train_labels: found text b'\xe9', expected it in UTF-8"),
        (IMAGES, np.ma.masked_less(range(6), 2), "train_labels: found a masked array that lacks 2"),
        (np.ma.masked_less(IMAGES, 9), [0, 1] * 3, "train_images: found a masked array that lacks"),
    ],
)
def test_what_is_no_data_set_is_one_line(images, labels, message):
    assert refusal(images, labels).startswith(message)


def test_floats_that_look_like_bytes_are_noted():
    data = dataset_from_arrays(IMAGES.astype(np.float32), [0, 1] * 3, IMAGES / 1.0, [0, 1] * 3)
    assert data.scale == 1
    (note,) = data.notes
    assert note.startswith("images are floats up to ") and "divide by 255" in note
    assert dataset_from_arrays(IMAGES / 255, [0, 1] * 3, IMAGES / 255, [0, 1] * 3).notes == ()


@pytest.mark.parametrize("train", [IMAGES, IMAGES / 255], ids=["bytes", "floats"])
def test_test_images_on_another_scale_are_noted(train):
    (note,) = dataset_from_arrays(train, [0, 1] * 3, IMAGES / 1.0, [0, 1] * 3).notes
    assert note.startswith("test images are floats up to ")
    assert dataset_from_arrays(IMAGES / 255, [0, 1] * 3, IMAGES, [0, 1] * 3).notes == ()
