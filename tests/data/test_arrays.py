"""What counts as images and labels for a network: taken as meant, or one clear line."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base import images as base_images
from distnet.base.images import checked_images
from distnet.data import DataError, file_array
from distnet.data.arrays import channels_first, checked_labels, checked_samples

RNG = np.random.Generator(np.random.Philox(key=4))
GREY = RNG.integers(0, 256, (6, 1, 5, 4), np.uint8)
COLOUR = RNG.integers(0, 256, (6, 3, 5, 4), np.uint8)


def refusal(call, *arguments) -> str:
    with pytest.raises(DataError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 400
    return message


class TestImages:
    @pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", ">f4"])
    def test_bytes_and_floats_are_taken_as_they_are(self, dtype):
        images = COLOUR.astype(dtype)
        checked = checked_images(images, (3, 5, 4))
        assert checked.dtype == np.dtype(dtype)
        assert np.shares_memory(checked, images)
        np.testing.assert_array_equal(checked, images)

    @pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64"])
    def test_other_integers_are_explained(self, dtype):
        message = refusal(checked_images, GREY.astype(dtype), (1, 5, 4))
        assert message.startswith(f"images: found {dtype}, expected uint8 (0 to 255, read as 0 to")
        assert "astype('uint8')" in message

    def test_true_and_false_are_white_and_black(self):
        checked = checked_images(GREY > 99, (1, 5, 4))
        np.testing.assert_array_equal(checked, np.where(GREY > 99, 255, 0))
        assert checked.dtype == np.uint8

    @pytest.mark.parametrize("images", [GREY[:, 0], GREY, GREY.transpose(0, 2, 3, 1)])
    def test_grey_images_in_three_forms(self, images):
        np.testing.assert_array_equal(checked_images(images, (1, 5, 4)), GREY)

    def test_channels_may_come_last(self):
        np.testing.assert_array_equal(
            checked_images(COLOUR.transpose(0, 2, 3, 1), (3, 5, 4)), COLOUR
        )

    def test_the_shape_of_the_network_settles_what_is_ambiguous(self):
        images = RNG.random((2, 3, 3, 3))
        np.testing.assert_array_equal(checked_images(images, (3, 3, 3)), images)

    def test_rows_of_numbers(self):
        rows = RNG.random((6, 20))
        assert checked_images(rows, (20,)) is not None
        message = refusal(checked_images, rows, (1, 5, 4))
        assert "found shape (6, 20), expected (N, 1, 5, 4); images.reshape(-1, 1, 5, 4)" in message

    def test_what_numpy_makes_an_array_of(self):
        """Tables and tensors of other libraries are indexed by rules of their own."""

        class Table:
            shape, dtype = GREY.shape, "their own"

            def __array__(self, dtype=None, copy=None):
                return GREY

            def __getitem__(self, key):
                raise AssertionError("not to be asked")

        np.testing.assert_array_equal(checked_images(Table(), (1, 5, 4)), GREY)
        matrix = np.ma.masked_array(GREY, GREY > 300)
        assert type(checked_images(matrix, (1, 5, 4))) is np.ndarray

    def test_lists(self):
        np.testing.assert_array_equal(checked_images((GREY / 255).tolist(), (1, 5, 4)), GREY / 255)
        assert "found int64" in refusal(checked_images, GREY.tolist(), (1, 5, 4))

    def test_a_single_image(self):
        assert checked_images(GREY[0], (1, 5, 4)).shape == (1, 1, 5, 4)  # (N, H, W) with N = 1
        for single, shape in ((GREY[0, 0], (1, 5, 4)), (COLOUR[0], (3, 5, 4))):
            assert "a single image is images[None]" in refusal(checked_images, single, shape)

    @pytest.mark.parametrize(
        ("images", "message"),
        [
            (COLOUR, "found shape (6, 3, 5, 4), expected (N, 1, 5, 4)"),
            (GREY[:, :, :4], "found shape (6, 1, 4, 4), expected (N, 1, 5, 4)"),
            (GREY[:0], "found an empty array (0, 1, 5, 4)"),
            (np.uint8(3), "found shape (), expected (N, 1, 5, 4)"),
            ([[1.0], [1.0, 2.0]], "found no array ("),
            ("digits.png", "found <U10, expected uint8"),
            (None, "found object, expected uint8"),
            (GREY.astype(complex), "found complex128, expected uint8"),
        ],
        ids=str,
    )
    def test_everything_else_is_one_line(self, images, message):
        assert refusal(checked_images, images, (1, 5, 4)).startswith(f"images: {message}")

    @pytest.mark.parametrize("piece_bytes", [1, 100, 1 << 22])
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_named(self, monkeypatch, piece_bytes, value):
        monkeypatch.setattr(base_images, "PIECE_BYTES", piece_bytes)
        images = RNG.random((30, 1, 5, 4)).astype(np.float32)
        checked_images(images, (1, 5, 4))
        images[17, 0, 2, 3] = images[20, 0, 0, 0] = value
        kind = "NaN" if np.isnan(value) else "an infinite number"
        message = refusal(checked_images, images, (1, 5, 4))
        assert message == f"images: the data hold {kind} in image 17, counted from 0"

    def test_what_float32_has_no_number_for_is_named(self):
        images = np.full((3, 1, 5, 4), np.finfo(np.float32).max, np.float64)
        checked_images(images, (1, 5, 4))
        images[1, 0, 0, 0] = -1e39
        message = refusal(checked_images, images, (1, 5, 4))
        assert message.startswith("images: the data hold 1e+39, more than float32 has, in image 1")

    def test_arrays_in_files(self, tmp_path, monkeypatch):
        monkeypatch.setattr(file_array, "MEMORY_BYTES", 10)
        (tmp_path / "x").write_bytes(COLOUR.transpose(0, 2, 3, 1).tobytes())
        stored = file_array.file_array(tmp_path / "x", (6, 5, 4, 3), np.uint8)
        checked = checked_images(stored, (3, 5, 4))
        assert isinstance(checked, file_array.FileArray)
        np.testing.assert_array_equal(checked[[2, 1]], COLOUR[[2, 1]])
        (tmp_path / "nan").write_bytes(np.array([1, 2, np.nan], np.float32).tobytes())
        stored = file_array.file_array(tmp_path / "nan", (3, 1), np.float32)
        assert "NaN in image 2" in refusal(checked_images, stored, (1,))


class TestLayout:
    @pytest.mark.parametrize("c", [1, 3])
    def test_one_or_three_channels_are_found_where_they_are(self, c):
        first = RNG.random((2, c, 8, 7))
        assert channels_first(first).shape == (2, c, 8, 7)
        assert channels_first(first.transpose(0, 2, 3, 1)).shape == (2, c, 8, 7)

    def test_grey_images_and_rows(self):
        assert channels_first(RNG.random((2, 8, 7))).shape == (2, 1, 8, 7)
        assert channels_first(RNG.random((2, 8))).shape == (2, 8)

    @pytest.mark.parametrize("shape", [(2, 3, 8, 1), (2, 1, 1, 3), (2, 4, 8, 7), (2, 8, 7, 4)])
    def test_what_is_ambiguous_can_be_said(self, shape):
        images = RNG.random(shape)
        message = refusal(channels_first, images)
        assert 'say layout="NCHW" or "NHWC"' in message and "and " in message
        np.testing.assert_array_equal(channels_first(images, "NCHW"), images)
        np.testing.assert_array_equal(channels_first(images, "NHWC"), images.transpose(0, 3, 1, 2))

    @pytest.mark.parametrize("shape", [(2,), (2, 3, 4, 5, 6)])
    def test_other_shapes(self, shape):
        assert f"found shape {shape}" in refusal(channels_first, RNG.random(shape))

    def test_an_unknown_layout(self):
        assert "layout 'CHWN'" in refusal(channels_first, RNG.random((2, 3, 8, 7)), "CHWN")


class TestLabels:
    @pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", ">i4", "uint64"])
    def test_integers(self, dtype):
        labels = np.array([0, 2, 1], dtype)
        np.testing.assert_array_equal(checked_labels(labels, 3), [0, 2, 1])

    @pytest.mark.parametrize(
        "labels",
        [
            [0, 2, 1],
            (0, 2, 1),
            [[0], [2], [1]],
            np.eye(3)[[0, 2, 1]],
            np.eye(3, dtype=bool)[[0, 2, 1]],
            np.eye(3, dtype=int)[[0, 2, 1]].tolist(),
            np.array([0, 2, 1], object),
        ],
        ids=str,
    )
    def test_lists_columns_and_one_hot_rows(self, labels):
        checked = checked_labels(labels, 3)
        np.testing.assert_array_equal(checked, [0, 2, 1])
        assert checked.dtype.kind in "iu"

    def test_booleans_are_0_and_1(self):
        checked = checked_labels(np.array([False, True, True]), 2)
        np.testing.assert_array_equal(checked, [0, 1, 1])
        assert checked.dtype == np.uint8  # not a mask, should it be used as an index
        np.testing.assert_array_equal(checked_labels([False, True], 2), [0, 1])

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 3], "found 3, expected 0 to 2 for 3 classes; a data set made of the arrays maps"),
            ([-1, 0], "found -1, expected 0 to 2 for 3 classes"),
            (np.eye(4), "found 3, expected 0 to 2"),
            ([0.0, 1.0], "found float64 of shape (2,), expected (N,) whole numbers, text"),
            ([np.nan, 1.0], "found float64"),
            (["cat", "dog"], "found text such as 'cat', expected whole numbers"),
            ([[0, 1], [1, 1]], "found rows of 2 numbers, expected a single 1 and else 0 in each"),
            ([[0.0, 0.5, 0.5]], "found rows of 3 numbers"),
            ([[0, 2, 0]], "found rows of 3 numbers"),
            ([], "found float64 of shape (0,)"),
            (np.array([], int), "found none, expected one for each image"),
            (np.zeros((0, 3)), "found float64 of shape (0, 3)"),
            (np.zeros((2, 2, 2), int), "found int64 of shape (2, 2, 2)"),
            (3, "found int64 of shape ()"),
            (None, "found object of shape ()"),
            (["cat", None], "found None at place 1, expected text throughout"),
            (np.array([1, "cat"], object), "found 'cat' at place 1"),
            ([[1], [1, 2]], "found no array ("),
            (np.array([1 + 2j]), "found complex128"),
            (np.array(["2020-01-01"], "datetime64[D]"), "found datetime64[D]"),
        ],
        ids=str,
    )
    def test_everything_else_is_one_line(self, labels, message):
        assert refusal(checked_labels, labels, 3).startswith(f"labels: {message}")


def test_a_label_for_each_image():
    samples = checked_samples(GREY[:, 0], [0, 1, 0, 1, 0, 1], (1, 5, 4), 2)
    assert samples.inputs.shape == (6, 1, 5, 4) and samples.targets.tolist() == [0, 1] * 3
    message = refusal(checked_samples, GREY, [0, 1], (1, 5, 4), 2)
    assert message == "labels: found 2, expected 6, one for each image"
