"""Augmentations against what they should do to each single image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnet.data import (
    augmentation,
    composed,
    random_affine,
    random_brightness,
    random_cutout,
    random_flip,
    random_shift,
)

LEAST, MOST = 0, 0xFFFF  # a 16-bit field at the ends of its range


def random_images(n: int, c: int, h: int, w: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).integers(0, 256, (n, c, h, w), np.uint8)


def random_words(n: int, seed: int = 1) -> np.ndarray:
    return np.random.Philox(key=seed).random_raw(n)


def moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """`image` (C, H, W), pixel by pixel."""
    result = np.zeros_like(image)
    _, h, w = image.shape
    for y, x in np.ndindex(h, w):
        if 0 <= y - down < h and 0 <= x - right < w:
            result[:, y, x] = image[:, y - down, x - right]
    return result


def word(turn: int = LEAST, zoom: int = LEAST, down: int = LEAST, right: int = LEAST) -> np.ndarray:
    return np.array([turn | zoom << 16 | down << 32 | right << 48], np.uint64)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
@pytest.mark.parametrize("max_shift", [0, 1, 2, 5])
def test_the_words_count_through_all_shifts(dtype, max_shift):
    side = 2 * max_shift + 1
    images = random_images(side * side, 2, 5, 4)
    shifted = random_shift(images, np.arange(side * side, dtype=dtype), max_shift)
    expected = [
        moved(images[b], b // side - max_shift, b % side - max_shift) for b in range(side * side)
    ]
    np.testing.assert_array_equal(shifted, expected)


@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(0, 5), st.integers(0, 2**32), st.booleans())
def test_each_image_is_shifted_for_itself(shape, max_shift, seed, narrow):
    max_shift = min(max_shift, *shape[2:])
    images, bits = random_images(*shape), random_words(shape[0], seed)
    bits = (bits >> np.uint64(32)).astype(np.uint32) if narrow else bits
    side = 2 * max_shift + 1
    expected = []
    for image, b in zip(images, bits.tolist(), strict=True):
        expected.append(moved(image, b // side % side - max_shift, b % side - max_shift))
    np.testing.assert_array_equal(random_shift(images, bits, max_shift), expected)


def test_shifts_are_uniform_on_random_words():
    dot = np.zeros((9000, 1, 3, 3), np.uint8)
    dot[:, :, 1, 1] = 1
    counts = random_shift(dot, random_words(9000), 1).sum(axis=0, dtype=int).ravel()
    assert counts.sum() == 9000
    chi_square = ((counts - 1000) ** 2 / 1000).sum()
    assert chi_square < 26.1  # the 99.9 % quantile for 8 degrees of freedom


AFFINE = (15.0, (0.8, 1.25), 2.0)


@pytest.mark.parametrize(
    "augment",
    [
        lambda images, bits, out=None: random_shift(images, bits, 2, out),
        lambda images, bits, out=None: random_affine(images, bits, *AFFINE, out),
        random_flip,
        lambda images, bits, out=None: random_brightness(images, bits, 0.5, out),
        lambda images, bits, out=None: random_cutout(images, bits, 3, out),
    ],
    ids=["shift", "affine", "flip", "brightness", "cutout"],
)
class TestAll:
    def test_leaves_its_arguments_alone(self, augment):
        images, bits = random_images(10, 3, 8, 7), random_words(10)
        before = images.copy(), bits.copy()
        augment(images, bits)
        np.testing.assert_array_equal(images, before[0])
        np.testing.assert_array_equal(bits, before[1])

    def test_fills_out(self, augment):
        images, bits = random_images(10, 3, 8, 7), random_words(10)
        out = np.full_like(images, 77)
        assert augment(images, bits, out) is out
        np.testing.assert_array_equal(out, augment(images, bits))

    def test_works_in_place_and_in_any_memory_order(self, augment):
        images, bits = random_images(10, 3, 8, 7), random_words(10)
        expected = augment(images, bits)
        strided = images.transpose(2, 3, 0, 1).copy().transpose(2, 3, 0, 1)
        augment(strided, bits, strided)
        np.testing.assert_array_equal(strided, expected)

    def test_does_not_depend_on_the_company(self, augment):
        images, bits = random_images(10, 3, 8, 7), random_words(10)
        alone = [augment(images[i : i + 1], bits[i : i + 1])[0] for i in range(10)]
        np.testing.assert_array_equal(augment(images, bits), alone)

    def test_does_something(self, augment):
        images, bits = random_images(50, 1, 8, 7), random_words(50)
        unchanged = (augment(images, bits) == images).all(axis=(1, 2, 3))
        assert unchanged.sum() < (35 if augment is random_flip else 10)

    def test_an_empty_batch(self, augment):
        assert augment(random_images(0, 1, 8, 7), random_words(0)).shape == (0, 1, 8, 7)

    def test_rejects_other_arrays(self, augment):
        images, bits = random_images(4, 1, 8, 7), random_words(4)
        for bad_images in (images[0], images.astype(np.int64)):
            with pytest.raises(ValueError, match=r"expected uint8 or floats \(N, C, H, W\)"):
                augment(bad_images, bits)
        for bad_bits in (bits[:3], bits.astype(np.int64), bits.astype(np.uint8)):
            with pytest.raises(ValueError, match=r"expected .*uint64 \(4,\)"):
                augment(images, bad_bits)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_floats_become_what_bytes_become(self, augment, dtype):
        images, bits = random_images(20, 3, 8, 7), random_words(20)
        found = augment(images.astype(dtype) / 2, bits)
        assert found.dtype == dtype
        kept = np.minimum(found, 127.5)  # bytes do not get brighter than white
        assert abs(kept - augment(images, bits) / 2).max() <= 0.26

    def test_rejects_another_type_of_out(self, augment):
        images, bits = random_images(4, 1, 8, 7), random_words(4)
        with pytest.raises(TypeError, match="cast"):
            augment(images, bits, images.astype(np.float32))


@pytest.mark.parametrize("max_shift", [-1, 9])
def test_impossible_shift(max_shift):
    with pytest.raises(ValueError, match=f"found max_shift {max_shift}, expected 0 to 8"):
        random_shift(random_images(1, 1, 8, 7), random_words(1), max_shift)


def test_affine_needs_64_bits():
    with pytest.raises(ValueError, match="expected uint64"):
        random_affine(random_images(2, 1, 8, 7), np.zeros(2, np.uint32), *AFFINE)


@pytest.mark.parametrize(
    "arguments",
    [(-1, (1, 1), 0), (0, (0, 1), 0), (0, (1.1, 1), 0), (0, (1, 1), -1), (0, (math.nan, 1), 0)],
)
def test_impossible_affine(arguments):
    with pytest.raises(ValueError, match="expected no negatives"):
        random_affine(random_images(1, 1, 8, 7), random_words(1), *arguments)


def test_affine_without_ranges_is_the_identity():
    images = random_images(20, 2, 9, 6)
    np.testing.assert_array_equal(random_affine(images, random_words(20), 0, (1, 1), 0), images)


@pytest.mark.parametrize("size", [1, 2, 7, 8])
@pytest.mark.parametrize(("turn", "quarters"), [(LEAST, -1), (MOST, 1)])
def test_quarter_turns_are_exact_and_positive_is_counterclockwise(size, turn, quarters):
    image = random_images(1, 3, size, size)
    turned = random_affine(image, word(turn=turn), 90, (1, 1), 0)
    np.testing.assert_array_equal(turned, np.rot90(image, quarters, axes=(2, 3)))


@pytest.mark.parametrize("down", [LEAST, MOST])
@pytest.mark.parametrize("right", [LEAST, MOST])
@pytest.mark.parametrize("max_shift", [1, 3, 7, 8, 100])
def test_whole_pixel_moves_are_exact(down, right, max_shift):
    image = random_images(1, 2, 8, 7)
    expected = moved(
        image[0], *(max_shift if field == MOST else -max_shift for field in (down, right))
    )
    result = random_affine(image, word(down=down, right=right), 0, (1, 1), max_shift)
    np.testing.assert_array_equal(result[0], expected)


def test_half_a_pixel_mixes_two():
    image = np.array([10, 20, 40, 80], np.uint8).reshape(1, 1, 1, 4)
    result = random_affine(image, word(down=MOST, right=MOST), 0, (1, 1), 0.5)
    # Down by half a pixel halves the only row; to the right, each pixel meets its left neighbour.
    np.testing.assert_array_equal(result.ravel(), [3, 8, 15, 30])


def test_scale_enlarges():
    image = np.zeros((1, 1, 20, 20), np.uint8)
    image[:, :, 7:13, 7:13] = 200
    area = [
        random_affine(image, word(zoom=zoom), 0, (0.5, 2.0), 0).sum(dtype=int) / image.sum()
        for zoom in (LEAST, MOST)
    ]
    assert area == pytest.approx([0.25, 4.0], rel=0.02)


@given(st.tuples(*[st.integers(1, 12)] * 4), st.integers(0, 2**32))
def test_affine_is_bilinear_interpolation(shape, seed):
    """Against the definition in float, pixel by pixel; weights of 8 bits cost 2 grey values."""
    images, bits = random_images(*shape), random_words(shape[0], seed)
    result = random_affine(images, bits, 40, (0.5, 1.5), 3)
    for image, b, got in zip(images, bits.tolist(), result, strict=True):
        error = np.abs(got - affine_in_float(image, b, 40, (0.5, 1.5), 3))
        assert error.max() <= 2.5


def affine_in_float(
    image: np.ndarray, bits: int, degrees: float, scales: tuple[float, float], max_shift: float
) -> np.ndarray:
    turn, zoom, down, right = ((bits >> place & 0xFFFF) / 0xFFFF for place in (0, 16, 32, 48))
    angle = math.radians(degrees * (2 * turn - 1))
    scale = scales[0] + (scales[1] - scales[0]) * zoom
    c, h, w = image.shape
    result = np.zeros((c, h, w))
    for y, x in np.ndindex(h, w):
        # Cartesian coordinates about the centre, y upward, before the turn counterclockwise
        cx = x - (w - 1) / 2 - max_shift * (2 * right - 1)
        cy = (h - 1) / 2 - y + max_shift * (2 * down - 1)
        px = (math.cos(angle) * cx + math.sin(angle) * cy) / scale
        py = (-math.sin(angle) * cx + math.cos(angle) * cy) / scale
        result[:, y, x] = bilinear(image, (h - 1) / 2 - py, (w - 1) / 2 + px)
    return result


def bilinear(image: np.ndarray, y: float, x: float) -> np.ndarray:
    c, h, w = image.shape
    total = np.zeros(c)
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < h and 0 <= column < w:
                total += image[:, row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_affine_never_changes_between_versions():
    images = random_images(3, 1, 6, 6)
    result = random_affine(images, random_words(3), 20, (0.8, 1.2), 1.5)
    assert result.sum(axis=(1, 2, 3), dtype=int).tolist() == SUMS


SUMS = [3703, 3594, 4129]


def test_odd_words_mirror():
    images = random_images(4, 3, 5, 4)
    flipped = random_flip(images, np.array([0, 1, 2, 2**64 - 1], np.uint64))
    for i, mirrored in enumerate((False, True, False, True)):
        expected = images[i, :, :, ::-1] if mirrored else images[i]
        np.testing.assert_array_equal(flipped[i], expected)


def test_about_half_are_mirrored():
    images = np.zeros((4000, 1, 1, 2), np.uint8)
    images[..., 0] = 1
    mirrored = random_flip(images, random_words(4000))[:, 0, 0, 1].sum(dtype=int)
    assert abs(mirrored - 2000) < 110  # 3.5 standard deviations


@given(st.integers(0, 2**64 - 1), st.floats(0, 1))
def test_brightness_multiplies_and_saturates(word, max_change):
    image = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found = random_brightness(image, np.array([word], np.uint64), max_change)
    factor = 1 + max_change * (2 * (word & 0xFFFF) / 0xFFFF - 1)
    expected = np.minimum(image * factor, 255)
    assert abs(found - expected).max() <= 0.51


def test_brightness_of_all_channels_changes_alike():
    grey = np.repeat(random_images(50, 1, 4, 4), 3, axis=1)
    found = random_brightness(grey, random_words(50), 0.5)
    assert (found[:, :1] == found).all()
    assert random_brightness(grey, random_words(50), 0.0) is not grey
    np.testing.assert_array_equal(random_brightness(grey, random_words(50), 0.0), grey)


@pytest.mark.parametrize("max_change", [-0.1, 1.1, math.nan])
def test_impossible_brightness(max_change):
    with pytest.raises(ValueError, match=r"found max_change .*, expected 0 to 1"):
        random_brightness(random_images(1, 1, 8, 7), random_words(1), max_change)


@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(0, 9), st.integers(0, 2**32))
def test_cutout_is_a_square_about_a_pixel(shape, size, seed):
    size = min(size, max(shape[2:]))
    images, bits = random_images(*shape), random_words(shape[0], seed)
    found = random_cutout(images, bits, size)
    for image, b, got in zip(images, bits.tolist(), found, strict=True):
        row, column = (b & 0xFFFFFFFF) % shape[2], (b >> 32) % shape[3]
        top, left = row - size // 2, column - size // 2
        expected = image.copy()
        expected[:, max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)] = 0
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("size", [-1, 9])
def test_impossible_cutout(size):
    with pytest.raises(ValueError, match=f"found size {size}, expected 0 to 8"):
        random_cutout(random_images(1, 1, 8, 7), random_words(1), size)


class TestComposed:
    def test_the_first_part_gets_the_words_as_they_are(self):
        images, bits = random_images(30, 3, 8, 7), random_words(30)
        np.testing.assert_array_equal(
            composed(random_flip)(images, bits), random_flip(images, bits)
        )

    def test_the_parts_are_independent(self):
        """Over 4096 consecutive words, of which each pair of low bits occurs equally often."""
        seen = []

        def record(images, bits):
            seen.append(bits)
            return images

        composed(record, record, record)(
            random_images(4096, 1, 1, 1), np.arange(4096, dtype=np.uint64)
        )
        for first, second in ((0, 1), (0, 2), (1, 2)):
            pairs = (seen[first] % 4 * 4 + seen[second] % 4).astype(int)
            counts = np.bincount(pairs, minlength=16)
            assert ((counts - 256) ** 2 / 256).sum() < 37.7  # 99.9 % for 15 degrees of freedom

    def test_words_of_the_later_parts(self):
        """The values of the published generator, seeded with the word."""
        seen = []
        composed(lambda x, b: x, lambda x, b: seen.append(b) or x)(
            random_images(1, 1, 1, 1), np.array([1234567], np.uint64)
        )
        assert seen[0].tolist() == [6457827717110365317]

    def test_what_is_asked_for_in_order(self):
        images, bits = random_images(40, 3, 8, 7), random_words(40)
        assert augmentation() is None
        augment = augmentation(shift=2, flip=True, brightness=0.3, cutout=3)
        in_a_row = composed(
            lambda x, b: random_shift(x, b, 2),
            random_flip,
            lambda x, b: random_brightness(x, b, 0.3),
            lambda x, b: random_cutout(x, b, 3),
        )
        np.testing.assert_array_equal(augment(images, bits), in_a_row(images, bits))
        alone = augmentation(shift=2)(images, bits)
        np.testing.assert_array_equal(alone, random_shift(images, bits, 2))

    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            (dict(rotation=400), "rotation: found 400.0, expected a number >= 0 and <= 180"),
            (dict(rotation=float("nan")), "rotation: found nan, expected a number"),
            (dict(shift=-1), "shift: found -1, expected a whole number >= 0 and <= 256"),
            (dict(shift=1.5), "shift: found 1.5, expected a whole number"),
            (dict(scale=1.0), "scale: found 1.0, expected a number >= 0 and < 1"),
            (dict(flip="no"), "flip: found 'no', expected true or false"),
            (dict(brightness=1.5), "brightness: found 1.5, expected a number >= 0 and <= 1"),
            (dict(cutout=1000), "cutout: found 1000, expected a whole number >= 0 and <= 256"),
        ],
        ids=str,
    )
    def test_what_cannot_be_meant_is_refused_when_it_is_made(self, asked, expected):
        with pytest.raises(ValueError, match=f"augmentation: {expected}"):
            augmentation(**asked)

    def test_numbers_of_numpy_are_numbers(self):
        asked = dict(shift=np.int64(2), rotation=np.float32(9), scale=0, flip=np.True_)
        assert augmentation(**asked) is not None

    def test_turned_scaled_and_moved_in_one_pass(self):
        images, bits = random_images(40, 1, 8, 7), random_words(40)
        for asked, expected in (
            (dict(rotation=10.0, scale=0.1, shift=2), (10.0, (0.9, 1.1), 2)),
            (dict(rotation=180.0), (180.0, (1.0, 1.0), 0)),
            (dict(scale=0.5), (0.0, (0.5, 1.5), 0)),
        ):
            found = augmentation(**asked)(images, bits)
            np.testing.assert_array_equal(found, random_affine(images, bits, *expected))
        then_flipped = composed(lambda x, b: random_affine(x, b, 9.0, (1.0, 1.0), 1), random_flip)
        found = augmentation(rotation=9.0, shift=1, flip=True)(images, bits)
        np.testing.assert_array_equal(found, then_flipped(images, bits))

    def test_does_not_depend_on_the_company(self):
        images, bits = random_images(10, 3, 8, 7), random_words(10)
        augment = augmentation(shift=2, flip=True, brightness=0.3, cutout=3)
        alone = [augment(images[i : i + 1], bits[i : i + 1])[0] for i in range(10)]
        np.testing.assert_array_equal(augment(images, bits), alone)

    def test_never_changes_between_versions(self):
        augment = augmentation(shift=1, flip=True, brightness=0.4, cutout=2)
        found = augment(random_images(3, 3, 6, 6), random_words(3))
        assert found.sum(axis=(1, 2, 3), dtype=int).tolist() == COMPOSED_SUMS


COMPOSED_SUMS = [9272, 6900, 7837]
