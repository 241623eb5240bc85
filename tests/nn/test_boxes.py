"""Boxes: overlaps and suppression against independent versions, and there and back again."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.nn.boxes import anchors, clipped, decoded, encoded, iou, nms


def random_boxes(n, seed=0, limit=40):
    """Whole corners, so that pixels can be counted."""
    rng = np.random.default_rng(seed)
    corner, size = rng.integers(0, limit, (n, 2)), rng.integers(1, limit // 2, (n, 2))
    return np.concatenate([corner, corner + size], axis=1).astype(float)


def counted_iou(a, b, limit=64):
    """Of pixels that are in both boxes and in either."""
    one, other = np.zeros((2, limit, limit), bool)
    for mask, (x1, y1, x2, y2) in ((one, a.astype(int)), (other, b.astype(int))):
        mask[y1:y2, x1:x2] = True
    return (one & other).sum() / (one | other).sum()


def test_iou_is_that_of_pixels():
    a, b = random_boxes(12), random_boxes(9, seed=1)
    found = iou(a, b)
    expected = [[counted_iou(one, other) for other in b] for one in a]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert (found > 0).any() and (found == 0).any()


def test_iou_of_empty_boxes_is_zero():
    point = np.array([[3.0, 3, 3, 3]])
    assert iou(point, point) == 0
    assert iou(np.zeros((0, 4)), point).shape == (0, 1)


def suppressed(boxes, scores, threshold):
    """Box by box, as the definition has it."""
    left, kept = sorted(range(len(boxes)), key=lambda i: (-scores[i], i)), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if counted_iou(boxes[best], boxes[i]) <= threshold]
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 1.0])
def test_suppression_is_that_of_the_definition(threshold):
    boxes = random_boxes(60, limit=30)
    scores = np.random.default_rng(1).integers(0, 9, 60) / 10  # many are equal
    kept = nms(boxes, scores, threshold)
    assert kept.tolist() == suppressed(boxes, scores, threshold)
    np.testing.assert_array_equal(nms(boxes, scores, threshold, most=3), kept[:3])


def test_of_equal_scores_the_first_box_is_better():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [30, 0, 40, 10]], float)
    assert nms(boxes, np.zeros(3), 0.5).tolist() == [0, 2]
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64])
def test_boxes_and_scores_may_be_whole_numbers(dtype):
    """Of bytes, the difference of boxes that lie apart would be a large number, and so on."""
    boxes, references = random_boxes(40, limit=60), random_boxes(40, seed=1, limit=60)
    scores = np.arange(40) % 9
    whole, those = boxes.astype(dtype), references.astype(dtype)
    np.testing.assert_array_equal(iou(whole, those), iou(boxes, references))
    np.testing.assert_array_equal(nms(whole, scores.astype(dtype), 0.3), nms(boxes, scores, 0.3))
    offsets = encoded(boxes, references)
    np.testing.assert_array_equal(encoded(whole, those), offsets)
    np.testing.assert_array_equal(decoded(offsets, those), decoded(offsets, references))


def test_decoding_undoes_encoding():
    boxes, references = random_boxes(50), random_boxes(50, seed=1)
    near = boxes * 0.2 + references * 0.8  # sizes grow by e^2 at most
    np.testing.assert_allclose(decoded(encoded(near, references), references), near, rtol=1e-12)
    assert not encoded(references, references).any()


def test_offsets_by_hand():
    offsets = encoded(np.array([[2.0, 3, 6, 13]]), np.array([[0.0, 0, 2, 5]]))
    np.testing.assert_allclose(offsets, [[1.5, 1.1, np.log(2), np.log(2)]])


def test_sizes_stay_within_reason():
    ((x1, y1, x2, y2),) = decoded(np.array([[0, 0, 50.0, -50]]), np.array([[0, 0, 2.0, 2]]))
    assert x2 - x1 == pytest.approx(2 * np.e**2) and y2 - y1 == pytest.approx(2 / np.e**2)


def test_boxes_end_at_the_rim():
    boxes = np.array([[-3.0, 2, 99, 50]], np.float32)
    np.testing.assert_array_equal(clipped(boxes, height=40, width=60), [[0, 2, 60, 40]])


def test_anchors_are_about_the_cells():
    boxes = anchors([(9, 13), (20, 4)], rows=2, columns=3, stride=4)
    assert boxes.shape == (12, 4) and boxes.dtype == np.float32
    middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    assert middles[::2].tolist() == [[2, 2], [6, 2], [10, 2], [2, 6], [6, 6], [10, 6]]
    assert sizes[:2].tolist() == [[9, 13], [20, 4]]
