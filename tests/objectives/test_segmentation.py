"""Segmentation: what it counts, and the same bits on any number of ranks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from distnet.data.scenes import IGNORED, RoadScenes, masked
from distnet.models import FCN, SegNet
from distnet.nn import BatchNorm, Conv2d, Linear, MicroBatch, Network, ReLU
from distnet.objectives import Segmentation
from distnet.objectives.segmentation import intersection_over_union
from distnet.parallel import SerialCommunicator
from distnet.training.fit import fit


def small(seed=0, dtype=np.float64):
    layers = [Conv2d(4, 3, pad=1), ReLU(), Conv2d(3, 1)]
    return Segmentation(Network(layers, (2, 5, 6), seed=seed, dtype=dtype))


def batch(n=7):
    rng = np.random.default_rng(1)
    x, masks = rng.standard_normal((n, 2, 5, 6)), rng.integers(0, 3, (n, 5, 6))
    masks[0], masks[1, 2:] = IGNORED, IGNORED
    return x, masks.astype(np.uint8)


def test_counts_are_a_confusion_matrix_of_the_pixels_that_are_not_ignored():
    trained, (x, masks) = small(), batch()
    loss, *counts = trained.measure(x, masks)
    predicted = trained.network.predict(x).argmax(axis=1)
    expected = np.zeros((3, 3), int)
    for t, p in zip(masks[masks != IGNORED], predicted[masks != IGNORED], strict=True):
        expected[t, p] += 1
    matrix = trained.matrix(np.array(counts))
    np.testing.assert_array_equal(matrix, expected)
    metrics = trained.metrics(loss, np.array(counts), len(x))
    assert metrics["pixel_accuracy"] == expected.trace() / expected.sum()
    assert metrics["miou"] == trained.score(metrics) == intersection_over_union(expected).mean()


def test_intersection_over_union_by_hand():
    truth = np.array([[0, 0, 1], [0, 1, 1]])
    taken = np.array([[0, 1, 1], [0, 1, 0]])
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (truth.ravel(), taken.ravel()), 1)
    # Class 0: 2 found, 3 + 3 - 2 in the union; the same for 1; class 2 is nowhere.
    np.testing.assert_array_equal(intersection_over_union(matrix), [0.5, 0.5, np.nan])


def test_the_mean_over_classes_has_no_order():
    """Which NumPy's has: the sum is rounded once. A class that does not occur is left out."""
    network = Network([Conv2d(30, 1)], (1, 2, 2))
    counts = np.random.default_rng(1).integers(1, 99, (30, 30))
    counts[7], counts[:, 7] = 0, 0
    found = Segmentation(network).metrics(0.0, counts.ravel(), 1)["miou"]
    parts = np.delete(intersection_over_union(counts), 7)
    assert found == float(sum(map(Fraction, parts.tolist()))) / 29


def test_without_known_pixels_nothing_is_divided_by_zero():
    trained = small()
    metrics = trained.metrics(0.0, np.zeros(9), 2)
    assert metrics == {"loss": 0, "miou": 0, "pixel_accuracy": 0}


def test_micro_batches_add_up_to_the_batch_though_one_has_no_pixel_that_counts():
    trained, (x, masks) = small(), batch()
    whole = trained.gradients(x, masks, MicroBatch())
    gradient, divisor = trained.parameters.grads.copy(), trained.divisor(masks)
    sums, gradients = [], []
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        sums.append(trained.gradients(x[part], masks[part], MicroBatch(), divisor))
        gradients.append(trained.parameters.grads.copy())
    np.testing.assert_allclose(sum(sums), whole, rtol=1e-13)
    np.testing.assert_allclose(sum(gradients), gradient, rtol=1e-11, atol=1e-15)
    assert not gradients[0].any()


def test_a_classifier_is_refused():
    with pytest.raises(ValueError, match="Segmentation: found ignored 'sky', expected a whole"):
        Segmentation(Network([Conv2d(2, 1)], (1, 4, 4)), ignored="sky")  # would ignore nothing
    with pytest.raises(ValueError, match=r"found outputs of shape \(5,\), expected \(K, H, W\)"):
        Segmentation(Network([Linear(5)], (2, 5, 6)))


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("maker", [FCN, SegNet])
def test_the_same_bits_on_three_ranks(maker, comm):
    """Batches of 7 in micro-batches of 2, the last one short; some pixels are ignored."""
    images, masks = masked(RoadScenes(size=(16, 24)), 21)
    masks[3, :9], masks[11] = IGNORED, IGNORED
    results = []
    for group in (SerialCommunicator(), comm):
        network = maker((3, 16, 24), 8, seed=2)
        history = fit(
            Segmentation(network),
            images,
            masks,
            steps=5,
            optimizer="adam",
            lr=0.01,
            batch_size=7,
            micro_batch_size=2,
            evaluate_on={"same": (images, masks)},
            comm=group,
        )
        results.append((history, network.parameters.statistics.copy()))
    (alone, statistics), (together, of_ranks) = results
    assert together == alone
    np.testing.assert_array_equal(statistics, of_ranks)
    assert any(isinstance(layer, BatchNorm) for layer in network.body.leaves())
    assert alone.losses[-1] < alone.losses[0]
