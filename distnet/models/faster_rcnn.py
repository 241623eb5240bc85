"""Faster R-CNN: where things are and what they are, by one network (book section 8.4.1).

Ren et al. 2015, arXiv:1506.01497, in small: one trunk reads the whole scene once; at each of its
cells a second network scores three anchors and shifts them; the best boxes that are left after
suppression are cut out of the trunk's features (RoI align), and a third network says what is in
each and shifts it once more.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape
from distnet.base.images import checked_images
from distnet.base.keys import MicroBatch
from distnet.nn import (
    Conv2d,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    arguments,
    joined,
    softmax,
)
from distnet.nn.boxes import Detections, anchors, clipped, decoded, nms
from distnet.nn.roi_align import RoIAlign

ANCHORS = [(9, 13), (13, 19), (19, 28)]  # width, height in pixels: those of digits
OFFSET_SCALE = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # of the head's offsets: about their std
STRIDE = 4  # pixels that a cell of the features is wide and high
BLOCK = 8  # scenes that are looked at together

# Proposals: the best by score, without those that are too small, and what suppression leaves.
NUM_CANDIDATES, NUM_PROPOSALS = 80, 24
MIN_WIDTH, MIN_HEIGHT = 2, 4
PROPOSAL_NMS = 0.6
# Detections: the least score, and the overlap from which on two are one.
MIN_SCORE = 0.05
DETECTION_NMS = 0.4


class FasterRCNN:
    """Three networks that are trained as one; 510,846 parameters for ten classes of digits.

    trunk: scenes `(N, C, H, W)` to features at a quarter of the size. proposer: features to a score
    and four offsets of each anchor at each cell, `(N, 5 A, H / 4, W / 4)`. head: the features of a
    box, 7 x 7, to scores of the background and all classes and four offsets, `(N, 1 + K + 4)`.

    It is made for objects of some 10 to 30 pixels, as anchors and the number of proposals say; it
    learns larger ones, too, but images are better scaled.

    parameters: those of all three. anchors: `(G, 4)`, in the order of rows, columns, sizes.
    """

    def __init__(
        self,
        input_shape: Shape = (1, 64, 84),
        num_classes: int = 10,
        *,
        filters: tuple[int, int, int] = (16, 32, 64),
        hidden: int = 128,
        size: int = 7,
        seed: int = 0,
        dtype: DTypeLike = np.float32,
        arithmetic: str | Arithmetic = FLOAT,
    ) -> None:
        num_classes = arguments.whole("FasterRCNN", "num_classes", num_classes)
        size = arguments.whole("FasterRCNN", "size", size)
        first, second, third = filters
        layers = [*_conv(first, pool=True), *_conv(second), *_conv(second, pool=True)]
        layers += [*_conv(third), *_conv(third)]
        seeds = [seed + part * 2**32 for part in range(3)]
        num_anchors = len(ANCHORS)
        make = partial(Network, dtype=dtype, arithmetic=arithmetic)
        self.trunk = make(layers, input_shape, seed=seeds[0])
        shape = channels, rows, columns = self.trunk.output_shape
        layers = [*_conv(channels), Conv2d(5 * num_anchors, 1, init=0.01)]
        self.proposer = make(layers, shape, seed=seeds[1])
        layers = [Linear(hidden), ReLU(), Linear(1 + num_classes + 4, init=0.01)]
        self.head = make(layers, (size * size * channels,), seed=seeds[2])
        self.parameters = joined(**self.networks)
        # Next to no anchor has an object: begin with sigmoid(-3) = 0.05.
        self.parameters.named()["proposer.conv2.bias"][:num_anchors] = -3
        self.parameters.refresh()
        self.input_shape, self.num_classes, self.size = input_shape, num_classes, size
        self.anchors = anchors(ANCHORS, rows, columns, STRIDE)
        self.align = RoIAlign(size, STRIDE, self.trunk.arithmetic)

    @property
    def networks(self) -> dict[str, Network]:
        """What it is made of, by name."""
        return {"trunk": self.trunk, "proposer": self.proposer, "head": self.head}

    def look(self, x: Array, at: MicroBatch | None = None) -> tuple[Array, Array, Array]:
        """Features, the scores of all anchors `(N, G)` and their offsets `(N, G, 4)`."""
        features = self.trunk.forward(x, at, copy=False)
        told, num_anchors = self.proposer.forward(features, at, copy=False), len(ANCHORS)
        n, _, h, w = told.shape
        scores = told[:, :num_anchors].transpose(0, 2, 3, 1).reshape(n, -1)
        offsets = told[:, num_anchors:].reshape(n, num_anchors, 4, h, w)
        return features, scores, offsets.transpose(0, 3, 4, 1, 2).reshape(n, -1, 4)

    def told(self, dscores: Array, doffsets: Array) -> Array:
        """The gradient of what the proposer told, from those of scores and offsets; see `look`."""
        n, num_anchors = len(dscores), len(ANCHORS)
        _, h, w = self.proposer.output_shape
        of_scores = dscores.reshape(n, h, w, num_anchors).transpose(0, 3, 1, 2)
        of_offsets = doffsets.reshape(n, h, w, 4 * num_anchors).transpose(0, 3, 1, 2)
        return np.concatenate([of_scores, of_offsets], axis=1)

    def propose(self, scores: Array, offsets: Array) -> Array:
        """The boxes `(M, 4)` of one scene that are worth a second look, best first."""
        _, height, width = self.trunk.input_shape
        best = np.argsort(-scores, kind="stable")[:NUM_CANDIDATES]
        boxes = decoded(offsets[best], self.anchors[best], self.trunk.arithmetic)
        boxes = clipped(boxes, height, width)
        sizes = boxes[:, 2:] - boxes[:, :2]
        large = (sizes[:, 0] > MIN_WIDTH) & (sizes[:, 1] > MIN_HEIGHT)
        boxes, best = boxes[large], best[large]
        return boxes[nms(boxes, scores[best], PROPOSAL_NMS, NUM_PROPOSALS)]

    def detect(self, images: Array) -> tuple[list[Detections], list[Array]]:
        """What is in each of the scenes `(N, C, H, W)`, and what was proposed on the way.

        Scenes are images as `Network.predict` takes them.
        """
        images = checked_images(images, self.trunk.input_shape)
        found, proposed = [], []
        for start in range(0, len(images), BLOCK):
            features, scores, offsets = self.look(
                self.trunk.as_input(images[start : start + BLOCK], copy=False)
            )
            proposals = [self.propose(*each) for each in zip(scores, offsets, strict=True)]
            boxes = padded(proposals, NUM_PROPOSALS)
            told = self.head.forward(self.align.forward(features, boxes), copy=False)
            told = told.reshape(len(boxes), NUM_PROPOSALS, -1)
            proposed += proposals
            found += [self._decide(*each) for each in zip(proposals, told, strict=True)]
        return found, proposed

    def _decide(self, proposals: Array, told: Array) -> Detections:
        _, height, width = self.trunk.input_shape
        told, arithmetic = told[: len(proposals)], self.trunk.arithmetic
        return decide(proposals, told, height, width, arithmetic)


def decide(
    regions: Array, told: Array, height: int, width: int, arithmetic: Arithmetic = FLOAT
) -> Detections:
    """Detections of one scene, from boxes `(M, 4)` and what a head tells of them `(M, 1 + K + 4)`.

    Each box goes to its best class; of boxes that overlap the better stays, whatever the classes.
    """
    probabilities, offsets = softmax(told[:, :-4], arithmetic)[:, 1:], told[:, -4:]
    labels = probabilities.argmax(axis=1)
    scores = probabilities[np.arange(len(labels)), labels]
    boxes = decoded(offsets * OFFSET_SCALE, regions, arithmetic)
    boxes = clipped(boxes, height, width)
    likely = scores > MIN_SCORE
    boxes, scores, labels = boxes[likely], scores[likely], labels[likely]
    kept = nms(boxes, scores, DETECTION_NMS)
    return Detections(boxes[kept], scores[kept], labels[kept])


def padded(boxes: list[Array], most: int) -> Array:
    """Lists of boxes as one array `(N, most, 4)`; boxes of one pixel fill it up."""
    filled = np.broadcast_to(np.array([0, 0, 1, 1], np.float32), (len(boxes), most, 4)).copy()
    for row, own in zip(filled, boxes, strict=True):
        row[: len(own)] = own[:most]
    return filled


def _conv(filters: int, pool: bool = False) -> list[Layer]:
    """A 3 x 3 convolution with ReLU, perhaps pooled first, which is the same and less work."""
    between: list[Layer] = [MaxPool2d(2)] if pool else []
    return [Conv2d(filters, 3, pad=1), *between, ReLU()]
