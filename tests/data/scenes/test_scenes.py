"""Drawn scenes: the same everywhere, each by itself, and what is said of them is in the picture."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from distnet.data import load_dataset
from distnet.data.augment import augmentation
from distnet.data.scenes import (
    IGNORED,
    PADDING,
    ROAD_CLASSES,
    VOCABULARY,
    WORDS,
    DigitGrids,
    DigitScenes,
    Part,
    RoadScenes,
    Scene,
    boxed,
    caption,
    caption_scenes,
    captioned,
    digits_of,
    masked,
    sentence_of,
    unpadded,
)


@pytest.fixture(scope="module")
def digits():
    return load_dataset("mnist").train


def sha256(scenes, count):
    sha = hashlib.sha256()
    for number in range(count):
        scene = scenes[number]
        for array in (scene.image, scene.mask, scene.boxes, scene.labels):
            sha.update(array.tobytes())
    return sha.hexdigest()


DIGITS_SHA256 = "c07799c9c174e990880743f9c1e7978ba68f993875659ba433a39f7aeb83bd98"
GRIDS_SHA256 = "87e0199aa0a111056783e774ef11fe4014a93db79599a191df811e3c718efe5f"
ROADS_SHA256 = "6ec396894694661355db4fa5eada01d76749bea64a44e45dc8e3fc13a11b7985"


def test_never_change_between_versions_and_machines(digits):
    assert sha256(DigitScenes(digits, seed=3), 40) == DIGITS_SHA256
    assert sha256(RoadScenes(seed=3), 40) == ROADS_SHA256
    assert sha256(DigitGrids(digits, seed=3), 10) == GRIDS_SHA256


@pytest.mark.parametrize("make", [lambda digits, **how: DigitScenes(digits, **how), None])
def test_a_scene_is_a_function_of_seed_part_and_number(make, digits):
    make = make or (lambda digits, **how: RoadScenes(**how))
    scenes = make(digits, seed=5)
    backwards = [scenes[number].image for number in (7, 3)]
    for number, image in zip((7, 3), backwards, strict=True):
        np.testing.assert_array_equal(make(digits, seed=5)[number].image, image)
    others = [scenes[4], make(digits, seed=6)[3], make(digits, seed=5, part=Part.TEST)[3]]
    assert all((other.image != backwards[1]).mean() > 0.3 for other in others)


def test_a_box_holds_all_of_its_digit_and_little_else(digits):
    """Of a single digit without clutter: the mask touches all four sides of the box, nearly."""
    scenes = DigitScenes(digits, most=1, clutter=(0, 0), noise=0)
    for number in range(60):
        scene = scenes[number]
        ((x1, y1, x2, y2),), (label,) = scene.boxes, scene.labels
        assert set(np.unique(scene.mask)) == {0, 1 + label}
        rows, columns = np.nonzero(scene.mask)
        assert y1 <= rows.min() <= y1 + 2 and y2 - 3 <= rows.max() < y2
        assert x1 <= columns.min() <= x1 + 2 and x2 - 3 <= columns.max() < x2
        outside = scene.image[0].astype(int)
        outside[y1:y2, x1:x2] = 0
        assert outside.max() == 0
        assert scene.image[0][scene.mask > 0].min() > 30


def test_digits_of_all_sizes_and_numbers(digits):
    scenes = [DigitScenes(digits)[number] for number in range(300)]
    heights = np.concatenate([scene.boxes[:, 3] - scene.boxes[:, 1] for scene in scenes])
    assert (heights.min(), heights.max()) == (12, 31)
    assert 17 <= np.median(heights) <= 21
    assert {len(scene.labels) for scene in scenes} == {1, 2, 3, 4, 5}
    assert set(np.concatenate([scene.labels for scene in scenes])) == set(range(10))
    boxes = np.concatenate([scene.boxes for scene in scenes])
    assert boxes.min() >= 1 and boxes[:, 2].max() <= 83 and boxes[:, 3].max() <= 63


def test_noise_has_the_deviation_asked_for(digits):
    plain, noisy = (DigitScenes(digits, clutter=(0, 0), noise=noise)[1] for noise in (0, 20))
    grey = (plain.image > 60) & (plain.image < 190)
    differences = noisy.image[grey].astype(int) - plain.image[grey]
    assert 16 < differences.std() < 24 and abs(differences.mean()) < 4


@pytest.mark.parametrize(
    "wrong",
    [{"heights": range(12, 80)}, {"heights": []}, {"most": 0}, {"clutter": (3, 2)}],
)
def test_scenes_that_cannot_be(wrong, digits):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*: found .* expected"):
        DigitScenes(digits, **wrong)


@pytest.mark.parametrize(
    ("boxes", "labels", "text"),
    [
        ([(1, 1, 12, 23)], [2], "a large two alone"),
        ([(1, 1, 8, 14), (2, 20, 9, 32)], [3, 7], "a small three above a small seven"),
        ([(2, 20, 9, 32), (1, 1, 8, 14)], [7, 3], "a small three above a small seven"),
        ([(20, 2, 33, 24), (1, 1, 8, 14)], [0, 9], "a small nine left of a large zero"),
    ],
)
def test_captions(boxes, labels, text):
    nothing = np.zeros((1, 40, 40), np.uint8)
    scene = Scene(nothing, nothing[0], np.array(boxes), np.array(labels))
    assert caption(scene) == text


def test_caption_scenes_have_one_caption_each(digits):
    scenes = [caption_scenes(digits)[number] for number in range(400)]
    captions = [caption(scene) for scene in scenes]
    assert {word for text in captions for word in text.split()} == set(WORDS)
    ways = {" ".join(word for word in text.split() if word in WORDS[3:7]) for text in captions}
    assert ways == {"alone", "above", "left of"}
    for scene in scenes:
        if len(scene.boxes) == 2:
            middles = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
            near, far = sorted(abs(middles[0] - middles[1]))
            assert far >= 1.5 * near


def test_a_scene_of_three_digits_has_no_caption():
    nothing = np.zeros((1, 40, 40), np.uint8)
    with pytest.raises(ValueError, match="found a scene of 3 digits"):
        caption(Scene(nothing, nothing[0], np.zeros((3, 4), int), np.zeros(3, int)))


def test_captioned_scenes_have_their_words_in_numbers(digits):
    scenes = caption_scenes(digits)
    images, sentences = captioned(scenes, 50)
    assert images.shape == (50, 1, 40, 40) and sentences.shape == (50, 9)
    for number, row in enumerate(sentences):
        np.testing.assert_array_equal(images[number], scenes[number].image)
        words = [VOCABULARY[word] for word in row[row != PADDING]]
        assert " ".join(words) == f"{caption(scenes[number])} ."
        assert sentence_of(row) == caption(scenes[number])
    lengths = (sentences != PADDING).sum(axis=1)
    assert lengths.min() == 5 and lengths.max() == 9  # as many as there are
    with pytest.raises(ValueError, match="expected at most 8 words with the stop"):
        captioned(scenes, 50, length=8)


def test_words_behind_the_stop_are_not_said():
    numbers = [VOCABULARY.index(word) for word in ["a", "large", "two", ".", "two"]]
    assert sentence_of(numbers) == "a large two"
    assert sentence_of([0, 3]) == sentence_of([PADDING]) == ""


def test_grids_of_digits(digits):
    grids = DigitGrids(digits, seed=3)
    scene = grids[4]
    assert scene.image.shape == (1, 84, 84) and scene.image.dtype == np.uint8
    for (x1, y1, x2, y2), label in zip(scene.boxes, scene.labels, strict=True):
        cell = scene.image[0, y1:y2, x1:x2]
        same = (digits.inputs[:, 0] == cell).all(axis=(1, 2))
        assert digits.targets[same.argmax()] == label and same.any()
        np.testing.assert_array_equal(scene.mask[y1:y2, x1:x2], (cell >= 64) * (label + 1))
    assert scene.boxes[1].tolist() == [28, 0, 56, 28]
    assert digits_of(scene).split() == [WORDS[7 + label] for label in scene.labels]
    assert DigitGrids(digits, side=2)[0].image.shape == (1, 56, 56)
    assert (grids[4].image == DigitGrids(digits, seed=3, part=Part.TEST)[4].image).mean() < 0.9
    with pytest.raises(ValueError, match="side: found 0"):
        DigitGrids(digits, side=0)


def test_each_digit_of_a_grid_is_augmented_by_itself(digits):
    moved = DigitGrids(digits, seed=3, augment=augmentation(shift=2))
    plain, scene, shifts = DigitGrids(digits, seed=3)[4], moved[4], set()
    np.testing.assert_array_equal(scene.labels, plain.labels)  # the same digits
    for x1, y1, x2, y2 in scene.boxes:
        cell, before = (each.image[0, y1:y2, x1:x2] for each in (scene, plain))
        found = [
            (down, right)
            for down, right in np.ndindex(5, 5)
            if (np.pad(before, 2)[down : down + 28, right : right + 28] == cell).all()
        ]
        shifts.update(found[:1])
        assert found
    assert len(shifts) > 3
    assert (scene.mask > 0).sum() == (scene.image >= 64).sum()
    np.testing.assert_array_equal(moved[4].image, scene.image)


def test_road_scenes_have_all_classes_in_all_places():
    scenes = RoadScenes()
    masks = np.stack([scenes[number].mask for number in range(200)])
    parts = np.bincount(masks.ravel(), minlength=len(ROAD_CLASSES)) / masks.size
    assert len(parts) == len(ROAD_CLASSES)
    assert (parts > [0.2, 0.05, 0.03, 0.25, 0.15, 0.02, 0.01, 0.01]).all(), parts
    assert (parts < [0.35, 0.12, 0.07, 0.40, 0.25, 0.04, 0.04, 0.03]).all(), parts
    image = scenes[0].image
    assert (image.shape, image.dtype) == ((3, 48, 64), np.uint8)
    wide = RoadScenes(size=(72, 96))[0]
    assert wide.image.shape == (3, 72, 96) and wide.mask.shape == (72, 96)


def test_no_colour_tells_the_class():
    """Nearest mean colour of the class: far from enough, so that form has to be seen."""
    scenes = [RoadScenes()[number] for number in range(60)]
    pixels = np.concatenate([scene.image.reshape(3, -1).T for scene in scenes]).astype(float)
    classes = np.concatenate([scene.mask.ravel() for scene in scenes])
    means = np.stack([pixels[classes == k].mean(axis=0) for k in range(len(ROAD_CLASSES))])
    nearest = ((pixels[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    recalls = [(nearest[classes == k] == k).mean() for k in range(len(ROAD_CLASSES))]
    assert np.mean(recalls) < 0.5


def test_masked_scenes_are_padded_and_say_so(digits):
    scenes = DigitScenes(digits)
    images, masks = masked(scenes, 3, multiple=16)
    assert images.shape == (3, 1, 64, 96) and masks.shape == (3, 64, 96)
    assert (masks[:, :, 84:] == IGNORED).all() and (images[..., 84:] == 0).all()
    np.testing.assert_array_equal(masks[2, :, :84], scenes[2].mask)
    np.testing.assert_array_equal(images[2, :, :, :84], scenes[2].image)


def test_boxed_scenes_hold_their_objects(digits):
    scenes = DigitScenes(digits)
    images, objects = boxed(scenes, 6)
    assert images.shape == (6, 1, 64, 84) and objects.shape == (6, 5, 5)
    for number in range(6):
        boxes, labels = unpadded(objects[number])
        np.testing.assert_array_equal(boxes, scenes[number].boxes)
        np.testing.assert_array_equal(labels, scenes[number].labels)


def test_a_scene_of_more_objects_than_there_is_place_for_is_named(digits):
    scenes = DigitScenes(digits, most=12)
    numbers = [len(scenes[number].labels) for number in range(9)]
    first = next(number for number, found in enumerate(numbers) if found > 3)
    with pytest.raises(ValueError, match=f"found {numbers[first]} objects in scene {first}, exp"):
        boxed(scenes, 9, most=3)
    assert boxed(scenes, 9, most=12).targets.shape == (9, 12, 5)
