"""Faster R-CNN's losses: what is wanted of anchors and regions, gradients, bits on many ranks."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.errors import DataError
from distnet.data import load_dataset
from distnet.data.scenes import DigitScenes, boxed, unpadded
from distnet.models.faster_rcnn import NUM_PROPOSALS, FasterRCNN
from distnet.models.rcnn import RCNN
from distnet.nn import MicroBatch
from distnet.nn.boxes import decoded, iou
from distnet.objectives.detection import Detection, RegionDetection, labelled, of_regions
from distnet.parallel import SerialCommunicator
from distnet.training.fit import fit

SMALL = {"input_shape": (1, 40, 48), "filters": (4, 4, 6), "hidden": 8}


@pytest.fixture(scope="module")
def scenes():
    digits = load_dataset("mnist").train
    return boxed(DigitScenes(digits, size=(40, 48), most=3), 17)


def small(seed=1, dtype=np.float32):
    return Detection(FasterRCNN(**SMALL, seed=seed, dtype=dtype))


def test_anchors_with_an_object_and_their_offsets(scenes):
    trained = small()
    anchors = trained.detector.anchors
    for objects in scenes.targets:
        boxes = objects[objects[:, 4] >= 0, :4].astype(np.float32)
        weights, has_object, wanted = trained._wanted_of_anchors(objects)
        overlaps = iou(anchors, boxes)
        best = overlaps.max(axis=1)
        assert has_object[best >= 0.5].all() and not weights[(best >= 0.3) & ~has_object].any()
        assert has_object[overlaps.argmax(axis=0)].all()  # no object without an anchor
        assert (weights[has_object] == 0.5 / 16).all()
        assert (weights[(best < 0.3) & ~has_object] == 2 / 900).all()
        found = decoded(wanted[has_object], anchors[has_object])
        assert (iou(found, boxes).max(axis=1) > 0.999).all()


def test_a_scene_without_objects_has_only_background(scenes):
    trained, nothing = small(), np.full_like(scenes.targets[:2], -1)
    x = trained.as_input(scenes.inputs[:2])
    loss, objects, proposed = trained.gradients(x, nothing, MicroBatch())
    assert np.isfinite(loss) and (objects, proposed) == (0, 0)
    assert trained.metrics(loss, np.array([0, 0]), 2)["proposal_recall"] == 0


def test_regions_with_an_object():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 20]], np.float32)
    candidates = np.array([[21, 0, 30, 19], [5, 5, 15, 15], [0, 0, 10, 10]], np.float32)
    regions = labelled(candidates, boxes, np.array([7, 3]), most=5)
    assert regions.labels.tolist() == [4, 0, 8, -1, -1]
    np.testing.assert_array_equal(regions.boxes[:3], candidates)
    assert regions.boxes.shape == (5, 4) and not regions.offsets[2:].any()
    found = decoded(regions.offsets[:1] * [0.1, 0.1, 0.2, 0.2], candidates[:1])
    np.testing.assert_allclose(found, boxes[1:], atol=1e-5)


def test_rows_that_stand_for_none_count_for_nothing():
    told = np.random.default_rng(0).standard_normal((5, 15))
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    regions = labelled(boxes, boxes, np.array([2]), most=5)
    loss, gradient = of_regions(told, regions, 0.25)
    assert not gradient[1:].any() and gradient[0].any()
    told[1:] = 9
    assert of_regions(told, regions, 0.25)[0] == loss


def test_the_gradient_is_that_of_the_loss(scenes):
    """With the choice of proposals as it is at first: the loss jumps where that changes."""
    trained = small(dtype=np.float64)
    detector, rng = trained.detector, np.random.default_rng(0)
    targets = scenes.targets[:3]
    x = trained.as_input(scenes.inputs[:3]).copy()
    values = trained.parameters.values
    values += rng.normal(0, 0.05, values.shape)  # away from heads that know nothing
    trained.parameters.refresh()
    _, scores, offsets = detector.look(x)
    frozen = trained._regions(scores, offsets, targets)
    trained._regions = lambda *_: frozen
    trained.gradients(x, targets, MicroBatch())
    grads, step = trained.parameters.grads.copy(), 1e-7
    for part in ("trunk", "proposer", "head"):
        for _ in range(3):
            direction = np.zeros(values.shape)
            start = trained.parameters.starts[part]
            size = getattr(detector, part).parameters.values.size
            direction[start : start + size] = rng.standard_normal(size)
            around = []
            for sign in (1, -1):
                values += sign * step * direction
                trained.parameters.refresh()
                around.append(float(trained.gradients(x, targets, MicroBatch())[0]))
                values -= sign * step * direction
            expected = (around[0] - around[1]) / (2 * step)
            assert grads @ direction == pytest.approx(expected, rel=2e-5, abs=1e-7), part


def test_measuring_is_the_same_loss_undivided(scenes):
    trained = small()
    x, targets = trained.as_input(scenes.inputs[:4]), scenes.targets[:4]
    loss, *counts = trained.gradients(x, targets, MicroBatch())
    measured, *counted = trained.measure(x, targets)
    assert measured == pytest.approx(4 * loss, rel=1e-6) and counts == counted
    assert counts[0] == (targets[..., 4] >= 0).sum()


@pytest.mark.mpi(min_size=3)
def test_the_same_bits_on_three_ranks(scenes, comm):
    """Batches of 7 scenes in micro-batches of 2, the last one short; other proposals each time."""
    results = []
    for group in (SerialCommunicator(), comm):
        trained = small()
        history = fit(
            trained,
            *scenes,
            steps=8,
            optimizer="adam",
            lr=0.003,
            batch_size=7,
            micro_batch_size=2,
            evaluate_on={"same": scenes},
            comm=group,
        )
        found, proposed = trained.detector.detect(scenes.inputs)
        results.append((history, [part.tobytes() for each in found for part in each]))
    assert results[0] == results[1]
    assert results[0][0].losses[-1] < results[0][0].losses[0]
    assert 0 < max(map(len, proposed)) <= NUM_PROPOSALS


# R-CNN.


def small_rcnn(seed=1, dtype=np.float32):
    return RegionDetection(RCNN((1, 40, 48), filters=(3, 4), hidden=8, seed=seed, dtype=dtype))


def test_regions_that_are_drawn(scenes):
    trained, targets = small_rcnn(), scenes.targets[:5]
    regions = trained._drawn(scenes.inputs[:5], targets, MicroBatch(1, 2, 3))
    again = trained._drawn(scenes.inputs[:5], targets, MicroBatch(1, 2, 3))
    other = trained._drawn(scenes.inputs[:5], targets, MicroBatch(1, 2, 4))
    np.testing.assert_array_equal(regions.boxes, again.boxes)
    assert (regions.boxes != other.boxes).any()
    assert regions.boxes.shape == (5, 24, 4)
    for boxes, labels, objects in zip(regions.boxes, regions.labels, targets, strict=True):
        true, classes = unpadded(objects)
        overlaps = iou(boxes, true.astype(np.float32))
        assert 1 <= (labels > 0).sum() <= 12 and (labels == 0).any()
        assert (overlaps[labels > 0].max(axis=1) >= 0.5).all()
        assert (overlaps[labels == 0].max(axis=1) < 0.5).all()
        np.testing.assert_array_equal(
            labels[labels > 0] - 1, classes[overlaps[labels > 0].argmax(axis=1)]
        )


def test_the_gradient_of_rcnn_is_that_of_its_loss(scenes):
    trained, rng = small_rcnn(dtype=np.float64), np.random.default_rng(0)
    x, targets, values = scenes.inputs[:3], scenes.targets[:3], trained.parameters.values
    values += rng.normal(0, 0.05, values.shape)
    trained.parameters.refresh()
    trained.gradients(x, targets, MicroBatch())
    grads, step = trained.parameters.grads.copy(), 1e-7
    for _ in range(4):
        direction, around = rng.standard_normal(values.shape), []
        for sign in (1, -1):
            values += sign * step * direction
            trained.parameters.refresh()
            around.append(float(trained.gradients(x, targets, MicroBatch())[0]))
            values -= sign * step * direction
        expected = (around[0] - around[1]) / (2 * step)
        assert grads @ direction == pytest.approx(expected, rel=2e-5)


@pytest.mark.mpi(min_size=3)
def test_rcnn_has_the_same_bits_on_three_ranks(scenes, comm):
    histories = []
    for group in (SerialCommunicator(), comm):
        trained = small_rcnn()
        settings = {"steps": 8, "optimizer": "adam", "lr": 0.01, "batch_size": 7, "comm": group}
        sets = {"same": (scenes.inputs[:6], scenes.targets[:6])}
        histories.append(fit(trained, *scenes, **settings, micro_batch_size=2, evaluate_on=sets))
    assert histories[0] == histories[1]
    assert min(histories[0].losses[-3:]) < histories[0].losses[0]


def changed(objects, what):
    """The objects, one of them wrong."""
    objects = objects.astype(np.float32)
    first = objects[2, 0]
    if what == "a class that there is not":
        first[4] = 10
    elif what == "half a class":
        first[4] = 2.5
    elif what == "width and height":
        first[:4] = 30, 20, 12, 14
    elif what == "no width":
        first[2] = first[0]
    elif what == "elsewhere":
        first[:4] += 100
    return objects[..., :4] if what == "no label" else objects


@pytest.mark.parametrize("make", [small, small_rcnn])
@pytest.mark.parametrize(
    ("what", "found"),
    [
        ("a class that there is not", r"found the label 10.0, expected 0 to 9"),
        ("half a class", r"found the label 2.5"),
        ("width and height", r"found the box \[30.0, 20.0, 12.0, 14.0\], expected x1, y1, x2, y2"),
        ("no width", "with x1 < x2"),
        ("elsewhere", "in a scene of 48 x 40 pixels"),
        ("no label", r"expected numbers \(N, most, 5\)"),
    ],
)
def test_objects_that_cannot_be_are_one_line(scenes, make, what, found):
    """They were trained on, or the learning rate was blamed."""
    trained, targets = make(), changed(scenes.targets, what)
    with pytest.raises(DataError, match=f"objects: .*{found}"):
        fit(trained, scenes.inputs, targets, steps=1, batch_size=17)
    with pytest.raises(DataError, match=f"objects: .*{found}"):
        trained.measure(trained.as_input(scenes.inputs), targets)


@pytest.mark.parametrize("wrong", [lambda x: x / np.float32(255), lambda x: x[..., :40]])
def test_rcnn_finds_regions_in_bytes_of_its_shape_alone(scenes, wrong):
    """In floats from 0 to 1 nothing is ever ink."""
    images, trained = wrong(scenes.inputs), small_rcnn()
    with pytest.raises(DataError, match=r"expected bytes \(N, 1, 40, 48\)"):
        fit(trained, images, scenes.targets, steps=1)
    with pytest.raises(DataError, match=r"expected bytes \(N, 1, 40, 48\)"):
        trained.detector.detect(images)
