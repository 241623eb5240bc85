"""Average precision: by hand, and against a slow version that follows the definition."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.nn.boxes import Detections, iou
from distnet.objectives.average_precision import (
    average_precisions,
    precision_recall,
    recall_of,
)

A, B, FAR = [0, 0, 10, 10], [20, 0, 30, 10], [50, 50, 60, 60]


def found(boxes, scores, labels=None):
    labels = [0] * len(boxes) if labels is None else labels
    return Detections(np.array(boxes, float).reshape(-1, 4), np.array(scores), np.array(labels))


def objects(boxes, labels=None):
    labels = [0] * len(boxes) if labels is None else labels
    return np.array(boxes, float).reshape(-1, 4), np.array(labels)


def test_a_curve_by_hand():
    """Right, wrong, the same again, right; one of three objects is never found."""
    detections = [found([A, FAR, A], [0.9, 0.8, 0.7]), found([B], [0.6])]
    truth = [objects([A]), objects([B, FAR])]
    curve = precision_recall(detections, truth, 0, 0.5)
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 1 / 3, 1 / 2])
    assert curve.average_precision == pytest.approx(1 / 3 + 1 / 3 * 1 / 2)


def test_nothing_found_and_nothing_there():
    assert average_precisions([found([], [])], [objects([A])], 1).tolist() == [0]
    assert np.isnan(average_precisions([found([A], [1.0])], [objects([])], 1)).all()


def test_all_right_is_one_and_other_classes_do_not_matter():
    detections = [found([A, B], [0.3, 0.9], [0, 1])]
    truth = [objects([A, B], [0, 1])]
    precisions = average_precisions(detections, truth, 3)
    assert precisions[:2].tolist() == [1, 1]
    assert np.isnan(precisions[2]) and np.nanmean(precisions) == 1  # no object can be missed


def test_how_near_a_box_must_be():
    shifted = [found([[2, 0, 12, 10]], [0.9])]  # 80 pixels of 120: two thirds
    precisions = [average_precisions(shifted, [objects([A])], 1, t)[0] for t in (0.5, 2 / 3, 0.75)]
    assert precisions == [1, 1, 0]


def slow(detections, truth, label, threshold):
    """All detections one by one, and the area as a sum over the objects that are found."""
    entries = [
        (score, -number, box, number)
        for number, each in enumerate(detections)
        for box, score, of in zip(*each, strict=True)
        if of == label
    ]
    entries.sort(key=lambda entry: entry[:2], reverse=True)
    left = {n: [list(b) for b in boxes[labels == label]] for n, (boxes, labels) in enumerate(truth)}
    total, everything = sum(map(len, left.values())), {n: list(v) for n, v in left.items()}
    right, points = 0, []
    for k, (_, _, box, number) in enumerate(entries, start=1):
        overlaps = [(iou(box[None], np.array([b]))[0, 0], b) for b in everything[number]]
        best = max(overlaps, key=lambda pair: pair[0], default=(0, None))
        if best[0] >= threshold and best[1] in left[number]:
            left[number].remove(best[1])
            right += 1
        points.append((right, right / k))
    best_from = [max((p for r, p in points if r >= i), default=0) for i in range(1, total + 1)]
    return sum(best_from) / total


@pytest.mark.parametrize("threshold", [0.4, 0.6])
def test_against_the_definition(threshold):
    rng = np.random.default_rng(0)
    detections, truth = [], []
    for _ in range(25):
        corners = rng.integers(0, 40, (4, 2))
        boxes = np.concatenate([corners, corners + rng.integers(6, 20, (4, 2))], axis=1)
        labels = rng.integers(0, 3, 4)
        truth.append(objects(boxes, labels))
        near = np.concatenate([boxes, boxes]) + rng.integers(-3, 4, (8, 4))
        taken_for = np.where(rng.random(8) < 0.7, np.tile(labels, 2), rng.integers(0, 3, 8))
        detections.append(found(near, rng.permutation(1000)[:8] / 1000, taken_for))
    fast = average_precisions(detections, truth, 3, threshold)
    expected = [slow(detections, truth, label, threshold) for label in range(3)]
    np.testing.assert_allclose(fast, expected, rtol=1e-12)
    assert fast.min() > 0.05 and fast.max() < 0.95


def test_recall_of_proposals():
    truth = [objects([A, B]), objects([]), objects([FAR])]
    proposals = [np.array([A, A, FAR], float), np.array([A], float), np.zeros((0, 4))]
    assert recall_of(proposals, truth) == 1 / 3
