"""Which things are where: the losses of R-CNN and of Faster R-CNN (book section 8.4.1)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, portable
from distnet.base.arrays import Array
from distnet.base.errors import DataError
from distnet.base.keys import MicroBatch, Purpose, stream
from distnet.data.scenes import unpadded
from distnet.models.faster_rcnn import NUM_PROPOSALS, OFFSET_SCALE, FasterRCNN, padded
from distnet.models.rcnn import RCNN, region_proposals
from distnet.nn.boxes import decoded, encoded, iou
from distnet.nn.losses import log_softmax, smooth_l1
from distnet.objectives.objective import Objective, Ready

POSITIVE, NEGATIVE = 0.5, 0.3  # overlaps from which on an anchor has an object, below which none
MAX_OFFSET = 10.0

# By what the sums of a scene are divided: about as many as there are. Constants, so that a loss
# is a sum over scenes, whatever the micro-batches and ranks.
POSITIVE_ANCHORS, NEGATIVE_ANCHORS, REGIONS = 16, 900, 18
PROPOSER_BETA = 0.1

# What R-CNN is trained on: so many regions of a scene, at most half of them with an object, and
# among those to choose from so many near each object, off by about so much of its size.
CHOSEN = 24
COPIES, SPREAD = 2, (0.07, 0.07, 0.12, 0.12)


class Regions(NamedTuple):
    """What the head shall say of the regions of a scene.

    boxes: `(R, 4)`. labels: `(R,)`, 0 for the background, 1 + class of an object, -1 for a row that
    stands for none. offsets: `(R, 4)`, how the object lies to the box.
    """

    boxes: Array
    labels: Array
    offsets: Array


@portable
class Detection(Objective):
    """Trains a `FasterRCNN` on scenes and their objects `(N, most, 5)`, see `data.scenes.boxed`.

    The loss of a scene is the sum of four: whether each anchor has an object (binary
    cross-entropy), how the object lies to it (smooth L1), what is in each proposal (cross-entropy)
    and how that lies to it. All anchors take part, with weights for those with and without an
    object, so that nothing is drawn. The proposals are constants for the second half: no gradient
    goes through the choice of boxes (Ren et al. 2015, section 3.2, "approximate joint training").
    The true boxes are among the regions from the start, when the proposer knows nothing yet.

    Metrics: loss, and proposal_recall, the part of the objects that a proposal overlaps by half.
    """

    counts = ("objects", "proposed")

    def __init__(self, detector: FasterRCNN) -> None:
        self.detector, self.parameters = detector, detector.parameters
        self.arithmetic = self.parameters.arithmetic

    def as_input(self, inputs: Array) -> Array:
        return self.detector.trunk.as_input(inputs, copy=False)

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        check_objects(targets, self.detector.num_classes, *self.detector.input_shape[1:])
        divisor = self.divisor(targets) if divisor is None else divisor
        detector, starts = self.detector, self.parameters.starts
        features, scores, offsets = detector.look(x, at)
        regions, *counted = self._regions(scores, offsets, targets)
        first, dscores, doffsets = self._of_anchors(scores, offsets, targets, 1 / divisor)
        pooled = detector.align.forward(features, regions.boxes)
        second, dtold = of_regions(
            detector.head.forward(pooled, at, copy=False), regions, 1 / divisor, self.arithmetic
        )

        def later(name: str) -> Ready | None:
            return None if ready is None else lambda start: ready(starts[name] + start)

        dpooled = detector.head.backward(dtold, need_dx=True, ready=later("head"), copy=False)
        assert dpooled is not None
        dfeatures = detector.align.backward(dpooled)
        dtold = detector.told(dscores, doffsets)
        of_proposer = detector.proposer.backward(
            dtold, need_dx=True, ready=later("proposer"), copy=False
        )
        assert of_proposer is not None
        dfeatures += of_proposer
        detector.trunk.backward(dfeatures, ready=later("trunk"))
        return self.sums(first + second, *counted)

    def measure(self, x: Array, targets: Array) -> Array:
        detector = self.detector
        check_objects(targets, detector.num_classes, *detector.input_shape[1:])
        features, scores, offsets = detector.look(x)
        regions, *counted = self._regions(scores, offsets, targets)
        first, _, _ = self._of_anchors(scores, offsets, targets, 1.0)
        told = detector.head.forward(detector.align.forward(features, regions.boxes), copy=False)
        second, _ = of_regions(told, regions, 1.0, self.arithmetic)
        return self.sums(first + second, *counted)

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        return {"loss": loss, "proposal_recall": float(counts[1]) / max(1.0, float(counts[0]))}

    def _of_anchors(
        self, scores: Array, offsets: Array, targets: Array, factor: float
    ) -> tuple[float, Array, Array]:
        """The loss of the proposer times `factor`, and its gradients by scores and offsets."""
        weights, has_object, wanted = (
            np.stack(each)
            for each in zip(*(self._wanted_of_anchors(objects) for objects in targets), strict=True)
        )
        weights *= factor
        # -log sigmoid(z) of an anchor with an object, -log(1 - sigmoid(z)) of the others
        losses = self.arithmetic.softplus(np.where(has_object, -scores, scores))
        dscores = (1 / (1 + self.arithmetic.exp(-scores)) - has_object) * weights
        of_offsets, doffsets = smooth_l1(offsets - wanted, PROPOSER_BETA)
        offset_weights = (has_object * (factor / POSITIVE_ANCHORS))[:, :, None]
        loss = _total(losses * weights, self.arithmetic)
        loss += _total(of_offsets * offset_weights, self.arithmetic)
        return loss, dscores.astype(scores.dtype), (doffsets * offset_weights).astype(scores.dtype)

    def _wanted_of_anchors(self, objects: Array) -> tuple[Array, Array, Array]:
        """For each anchor its weight, whether it has an object, and that one's offsets."""
        anchors = self.detector.anchors
        boxes, _ = unpadded(objects)
        overlaps = (
            iou(anchors, boxes.astype(np.float32)) if len(boxes) else np.zeros((len(anchors), 1))
        )
        nearest, best = overlaps.argmax(axis=1), overlaps.max(axis=1)
        has_object = best >= POSITIVE
        if len(boxes):  # a digit that no anchor overlaps by half has the anchor that comes closest
            closest = overlaps.argmax(axis=0)
            has_object[closest], nearest[closest] = True, np.arange(len(boxes))
            nearest_boxes = boxes[nearest].astype(np.float32)
            wanted = encoded(nearest_boxes, anchors, self.arithmetic)
        else:
            wanted = np.zeros_like(anchors)
        empty = (best < NEGATIVE) & ~has_object
        weights = has_object * (0.5 / POSITIVE_ANCHORS) + empty * (2 / NEGATIVE_ANCHORS)
        return weights, has_object, wanted

    def _regions(self, scores: Array, offsets: Array, targets: Array) -> tuple[Regions, int, int]:
        """What the head is trained on; how many objects there are, and how many were proposed."""
        most = NUM_PROPOSALS + targets.shape[1]
        parts, num_objects, num_proposed = [], 0, 0
        for s, o, objects in zip(scores, offsets, targets, strict=True):
            boxes, labels = unpadded(objects)
            proposals = self.detector.propose(s, o)
            if len(boxes) and len(proposals):
                best = iou(proposals, boxes.astype(np.float32)).max(axis=0)
                num_proposed += int(np.count_nonzero(best >= POSITIVE))
            num_objects += len(boxes)
            candidates = np.concatenate([proposals, boxes.astype(np.float32)])
            boxes = boxes.astype(np.float32)
            parts.append(labelled(candidates, boxes, labels, most, self.arithmetic))
        regions = Regions(*(np.stack(each) for each in zip(*parts, strict=True)))
        return regions, num_objects, num_proposed


@portable
class RegionDetection(Objective):
    """Trains an `RCNN` on scenes and their objects `(N, most, 5)`, see `data.scenes.boxed`.

    Of each scene 24 regions: up to 12 that overlap an object by half or more, and others. They are
    drawn among the proposals, the true boxes and boxes near these, by a stream that is keyed by the
    micro-batch. The loss of a scene is the sum of what is in each region (cross-entropy) and of how
    the object lies to it (smooth L1); see `of_regions`.

    Metrics: loss, and accuracy, the part of the regions whose class is right.
    """

    counts = ("regions", "right")

    def __init__(self, detector: RCNN) -> None:
        self.detector, self.parameters = detector, detector.parameters
        self.arithmetic = self.parameters.arithmetic

    def as_input(self, inputs: Array) -> Array:
        self.detector.check(inputs)
        return np.asarray(inputs)  # bytes, of which regions are proposed

    def gradients(
        self,
        x: Array,
        targets: Array,
        at: MicroBatch,
        divisor: float | None = None,
        ready: Ready | None = None,
    ) -> Array:
        divisor = self.divisor(targets) if divisor is None else divisor
        regions = self._drawn(x, targets, at)
        told = self._told(x, regions, at)
        loss, dtold = of_regions(told, regions, 1 / divisor, self.arithmetic)
        self.detector.network.backward(dtold, ready=ready)
        return self.sums(loss, *_counted(told, regions))

    def measure(self, x: Array, targets: Array) -> Array:
        """The sums for regions that are drawn alike every time."""
        regions = self._drawn(x, targets, MicroBatch())
        told = self._told(x, regions, None)
        loss, _ = of_regions(told, regions, 1.0, self.arithmetic)
        return self.sums(loss, *_counted(told, regions))

    def metrics(self, loss: float, counts: Array, num_samples: int) -> dict[str, float]:
        return {"loss": loss, "accuracy": float(counts[1]) / max(1.0, float(counts[0]))}

    def _told(self, x: Array, regions: Regions, at: MicroBatch | None) -> Array:
        detector = self.detector
        images = detector.cut(detector.as_input(x), regions.boxes)
        return detector.network.forward(images, at, copy=False)

    def _drawn(self, x: Array, targets: Array, at: MicroBatch) -> Regions:
        arithmetic = self.arithmetic
        check_objects(targets, self.detector.num_classes, *self.detector.input_shape[1:])
        rng = arithmetic.generator(stream(at.seed, Purpose.REGIONS, at.step, at.number))
        parts = []
        for image, objects in zip(x, targets, strict=True):
            boxes, labels = unpadded(objects)
            boxes = boxes.astype(np.float32)
            copies = np.repeat(boxes, COPIES, axis=0)
            near = decoded(rng.standard_normal(copies.shape) * SPREAD, copies, arithmetic)
            candidates = np.concatenate([region_proposals(image[0]), boxes, near])
            candidates = candidates.astype(np.float32)
            everything = labelled(candidates, boxes, labels, len(candidates), arithmetic)
            order = rng.permutation(len(candidates))
            with_object = order[everything.labels[order] > 0][: CHOSEN // 2]
            without = order[everything.labels[order] == 0][: CHOSEN - len(with_object)]
            chosen = candidates[np.concatenate([with_object, without])]
            parts.append(labelled(chosen, boxes, labels, CHOSEN, arithmetic))
        return Regions(*(np.stack(each) for each in zip(*parts, strict=True)))


def check_objects(objects: Array, num_classes: int, height: int, width: int) -> None:
    """Raises DataError unless they are `(N, most, 5)`, see `data.scenes.boxed`, of such scenes."""
    if objects.ndim != 3 or objects.shape[2] != 5 or objects.dtype.kind not in "iuf":
        raise DataError(
            f"objects: found {objects.dtype} of shape {objects.shape}, expected numbers "
            "(N, most, 5): x1, y1, x2, y2 and the label of each, or -1"
        )
    real = objects[objects[..., 4] >= 0]
    x1, y1, x2, y2, labels = real.T
    unknown = labels[(labels >= num_classes) | (labels % 1 != 0)]
    if unknown.size:
        raise DataError(
            f"objects: found the label {unknown[0]}, expected 0 to {num_classes - 1}, or -1"
        )
    are_inside = (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)
    wrong = real[~((x1 < x2) & (y1 < y2) & are_inside), :4]
    if wrong.size:
        raise DataError(
            f"objects: found the box {wrong[0].tolist()}, expected x1, y1, x2, y2 with x1 < x2 and "
            f"y1 < y2, in a scene of {width} x {height} pixels; x2 is x + width"
        )


def _counted(told: Array, regions: Regions) -> tuple[int, int]:
    """How many regions there are, and of how many the class is right."""
    labels = regions.labels.ravel()
    right = (told[:, :-4].argmax(axis=1) == labels) & (labels >= 0)
    return int(np.count_nonzero(labels >= 0)), int(np.count_nonzero(right))


def labelled(
    candidates: Array, boxes: Array, labels: Array, most: int, arithmetic: Arithmetic = FLOAT
) -> Regions:
    """Which of the candidates `(M, 4)` have an object, filled up to `most` rows."""
    wanted = np.full(most, -1)
    offsets = np.zeros((most, 4), np.float32)
    m = len(candidates)
    wanted[:m] = 0
    if len(boxes) and m:
        overlaps = iou(candidates, boxes)
        nearest = overlaps.argmax(axis=1)
        found = overlaps.max(axis=1) >= POSITIVE
        wanted[:m] = np.where(found, labels[nearest] + 1, 0)
        relative = encoded(boxes[nearest], candidates, arithmetic) / OFFSET_SCALE
        offsets[:m] = np.clip(relative, -MAX_OFFSET, MAX_OFFSET)
    return Regions(padded([candidates], most)[0], wanted, offsets)


def of_regions(
    told: Array, regions: Regions, factor: float, arithmetic: Arithmetic = FLOAT
) -> tuple[float, Array]:
    """The loss of a head times `factor`, and its gradient by what it tells, `(M, 1 + K + 4)`."""
    labels, wanted = regions.labels.ravel(), regions.offsets.reshape(-1, 4)
    real, rows = labels >= 0, np.arange(len(labels))
    weights = real * (factor / REGIONS)
    log_p = log_softmax(told[:, :-4], arithmetic)
    loss = -_total(log_p[rows, labels] * weights, arithmetic)
    gradient = np.empty_like(told)
    gradient[:, :-4] = arithmetic.exp(log_p)
    gradient[rows, np.where(real, labels, 0)] -= 1
    gradient[:, :-4] *= weights[:, None]
    losses, slopes = smooth_l1(told[:, -4:] - wanted)
    of_objects = ((labels > 0) * (factor / REGIONS))[:, None]
    gradient[:, -4:] = slopes * of_objects
    return loss + _total(losses * of_objects, arithmetic), gradient


def _total(losses: Array, arithmetic: Arithmetic) -> float:
    return float(arithmetic.sum(losses, None, dtype=np.float64))
