"""How good detections are: precision and recall over all scenes, and average precision (mAP).

None of it is a mean over scenes, micro-batches or ranks: the detections of all scenes are sorted by
their score together. Every rank needs all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from distnet.base.arrays import Array
from distnet.nn.boxes import Detections, iou


class Curve(NamedTuple):
    """Of one class, after its best detection, after its two best, and so on: `(M,)` each."""

    recall: Array
    precision: Array

    @property
    def average_precision(self) -> float:
        """The area under the curve, each precision being the best at that recall or beyond.

        Everingham et al. 2015, "The Pascal VOC Challenge: A Retrospective", section 3.2.1, since
        2010.
        """
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float((np.diff(self.recall, prepend=0) * best).sum())


def precision_recall(
    found: Sequence[Detections], truth: Sequence[tuple[Array, Array]], label: int, threshold: float
) -> Curve:
    """The curve of class `label`; truth: the boxes `(M, 4)` and labels `(M,)` of each scene.

    By falling score, each detection looks at the object of the class in its scene that it overlaps
    most. If that is by `threshold` (IoU) or more, and no better detection has it already, it is
    right. Of equal scores the one of the earlier scene comes first.
    """
    ranked: list[tuple[float, int, Array]] = []
    num_objects = 0
    objects = []
    for number, (each, (boxes, labels)) in enumerate(zip(found, truth, strict=True)):
        of_class = np.flatnonzero(each.labels == label)
        ranked += [(-float(each.scores[i]), number, each.boxes[i]) for i in of_class]
        objects.append(boxes[labels == label])
        num_objects += len(objects[-1])
    ranked.sort(key=lambda entry: entry[0])  # stable
    taken = [np.zeros(len(boxes), bool) for boxes in objects]
    right = np.zeros(len(ranked), bool)
    for k, (_, number, box) in enumerate(ranked):
        if len(objects[number]):
            overlaps = iou(box[None], objects[number])[0]
            nearest = overlaps.argmax()
            right[k] = overlaps[nearest] >= threshold and not taken[number][nearest]
            taken[number][nearest] |= right[k]
    num_right = np.cumsum(right)
    return Curve(num_right / max(1, num_objects), num_right / np.arange(1, len(ranked) + 1))


def average_precisions(
    found: Sequence[Detections],
    truth: Sequence[tuple[Array, Array]],
    num_classes: int,
    threshold: float = 0.5,
) -> Array:
    """The average precision of each class, `(K,)`; their mean, `np.nanmean`, is the mAP.

    NaN for a class of which there are no objects, so that nothing of it can be found.
    """
    occur = {label for _, labels in truth for label in labels.tolist()}
    return np.array(
        [
            precision_recall(found, truth, label, threshold).average_precision
            if label in occur
            else np.nan
            for label in range(num_classes)
        ]
    )


def recall_of(
    proposals: Sequence[Array], truth: Sequence[tuple[Array, Array]], threshold: float = 0.5
) -> float:
    """The part of all objects that some proposal of their scene, `(M, 4)`, overlaps so much."""
    num_found = num_objects = 0
    for boxes, (objects, _) in zip(proposals, truth, strict=True):
        num_objects += len(objects)
        if len(boxes) and len(objects):
            num_found += int(np.count_nonzero(iou(boxes, objects).max(axis=0) >= threshold))
    return num_found / max(1, num_objects)
