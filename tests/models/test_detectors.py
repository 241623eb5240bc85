"""R-CNN and Faster R-CNN: their sizes, the regions they look at, and what they decide."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.errors import DataError
from distnet.data import load_dataset
from distnet.data.scenes import DigitScenes, boxed, unpadded
from distnet.models.faster_rcnn import FasterRCNN, decide, padded
from distnet.models.rcnn import RCNN, components, pairs, region_proposals, smoothed
from distnet.objectives.average_precision import recall_of


@pytest.fixture(scope="module")
def scenes():
    return boxed(DigitScenes(load_dataset("mnist").test), 30)


def test_parameters():
    assert FasterRCNN().parameters.values.size == 510_846
    assert RCNN().parameters.values.size == 216_815
    assert FasterRCNN().anchors.shape == (3 * 16 * 21, 4)


def flooded(mask):
    """The boxes of connected pieces, pixel by pixel."""
    left, boxes = {(y, x) for y, x in zip(*np.nonzero(mask), strict=True)}, []
    while left:
        border = [left.pop()]
        piece = list(border)
        while border:
            y, x = border.pop()
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            border += near
            piece += near
        ys, xs = zip(*piece, strict=True)
        boxes.append([min(xs), min(ys), max(xs) + 1, max(ys) + 1])
    return sorted(boxes)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 0.5, 0.8, 1.0])
def test_connected_pieces_are_those_of_a_flood(part):
    mask = np.random.default_rng(0).random((23, 31)) < part
    assert sorted(components(mask).tolist()) == flooded(mask)


def test_pieces_that_meet_late_are_one():
    """Two columns that a row at the bottom joins, and a third one beside them."""
    mask = np.zeros((6, 9), bool)
    mask[:, 0] = mask[:, 4] = mask[5, :5] = mask[2, 7:] = True
    assert sorted(components(mask).tolist()) == [[0, 0, 5, 6], [7, 2, 9, 3]]


def test_pairs_are_near():
    boxes = np.array([[0, 0, 4, 4], [6, 0, 9, 4], [20, 20, 25, 25]])
    assert pairs(boxes).tolist() == [[0, 0, 9, 4]]
    assert pairs(boxes[:1]).shape == (0, 4)


def test_smoothing_keeps_the_mean():
    image = np.zeros((9, 9), np.uint8)
    image[4, 4] = 160
    assert smoothed(image)[3:6, 3:6].tolist() == [[10, 20, 10], [20, 40, 20], [10, 20, 10]]
    assert (smoothed(np.full((5, 7), 200, np.uint8)) == 200).all()


def test_nearly_all_digits_are_among_the_regions(scenes):
    proposals = [region_proposals(image[0]) for image in scenes.inputs]
    truth = [unpadded(objects) for objects in scenes.targets]
    assert recall_of(proposals, truth) > 0.97
    assert recall_of([p[:0] for p in proposals], truth) == 0
    assert 100 < np.mean([len(p) for p in proposals]) < 400


def test_a_scene_without_anything():
    assert region_proposals(np.zeros((64, 84), np.uint8)).shape == (0, 4)
    found, proposed = RCNN().detect(np.zeros((1, 1, 64, 84), np.uint8))
    assert len(found[0].scores) == len(proposed[0]) == 0


def test_a_region_is_cut_with_what_is_around_it():
    detector, x = RCNN(), np.zeros((1, 1, 64, 84), np.float32)
    x[0, 0, 20:40, 30:50] = 1
    (cut,) = detector.cut(x, np.array([[[30, 20, 50, 40]]]))[:, 0]
    assert cut.shape == (28, 28)
    assert cut[14, 14] == 1 and cut[0, 14] < 0.6 and cut[14, 3:25].min() > 0.9


def test_scenes_in_blocks_are_scenes_one_by_one(scenes):
    for detector in (FasterRCNN(seed=3), RCNN(seed=3)):
        together, _ = detector.detect(scenes.inputs[:3])
        alone, _ = detector.detect(scenes.inputs[1:2])
        np.testing.assert_allclose(together[1].scores, alone[0].scores, atol=1e-5)
        np.testing.assert_allclose(together[1].boxes, alone[0].boxes, atol=1e-3)


def test_proposals_are_few_large_enough_and_inside(scenes):
    _, proposed = FasterRCNN(seed=1).detect(scenes.inputs)
    for boxes in proposed:
        assert len(boxes) <= 24
        assert boxes.min() >= 0 and (boxes[:, 2:].max(axis=0) <= (84, 64)).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) > (2, 4)).all()


def test_a_decision():
    """Two boxes on one object, the better one stays; one says background, one is not sure."""
    regions = np.array([[0, 0, 10, 20], [1, 0, 11, 20], [30, 0, 40, 20], [50, 0, 60, 20]], float)
    told = np.full((4, 1 + 3 + 4), -9.0)
    told[:, -4:] = 0
    told[0, 2], told[1, 3], told[2, 0], told[3, :4] = 3, 5, 9, (3, 0, 0, 0.5)
    told[1, -4] = 1  # to the right by a tenth of the width
    found = decide(regions, told, 64, 84)
    assert found.labels.tolist() == [2, 2]
    assert found.scores[0] > 0.99 and 0.05 < found.scores[1] < 0.1
    np.testing.assert_allclose(found.boxes, [[2, 0, 12, 20], [50, 0, 60, 20]], atol=1e-5)


def test_padding():
    filled = padded([np.ones((2, 4)), np.zeros((0, 4))], 3)
    assert filled.shape == (2, 3, 4) and (filled[1] == [0, 0, 1, 1]).all()


def test_scenes_are_images_as_networks_take_them(scenes):
    detector = FasterRCNN(seed=1)
    with pytest.raises(DataError, match="images: found int64, expected uint8"):
        detector.detect(scenes.inputs[:2].astype(int))
    _, proposed = detector.detect(scenes.inputs[:2, 0])
    np.testing.assert_array_equal(proposed, detector.detect(scenes.inputs[:2])[1])


@pytest.mark.parametrize("number", [0, -1, 2.5])
def test_numbers_that_cannot_be_are_refused(number):
    for make in (FasterRCNN, RCNN):
        with pytest.raises(ValueError, match=r"found num_classes .*, expected a whole number"):
            make(num_classes=number)
    with pytest.raises(ValueError, match=r"found size .*, expected a whole number"):
        FasterRCNN(size=number)


def test_rcnn_looks_at_grey_scenes_alone():
    """Of three colours the first was looked at, and each was a region of its own."""
    with pytest.raises(ValueError, match=r"expected grey scenes, \(1, H, W\)"):
        RCNN((3, 40, 48))
