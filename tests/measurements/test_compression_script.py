"""Of `docs/measurements/compression.py`: what a worker sends, and that it keeps the rest."""

from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import load
from distnet.nn.parameters import Slot
from distnet.parallel import SerialCommunicator, make_reducer

script = load(Path(__file__).resolve().parents[2] / "docs/measurements/compression.py")

FILTERS, WEIGHTS, BIASES = (6, 2, 3, 3), (30, 10), (10,)
SLOTS = [
    Slot("conv.weight", 0, 108, FILTERS),
    Slot("linear.weight", 108, 408, WEIGHTS),
    Slot("linear.bias", 408, 418, BIASES),
]


def gradients(step):
    values = np.random.default_rng(step).standard_normal((script.WORKERS, 418))
    return list((0.1 * values).astype(np.float32))


def test_the_largest_are_sent_with_their_places():
    vectors = gradients(0)
    sent, num_bytes = script.top_k(0.05)(vectors)
    assert num_bytes == 21 * 8
    for vector, own in zip(vectors, sent, strict=True):
        places = np.flatnonzero(own)
        assert len(places) == 21
        np.testing.assert_array_equal(own[places], vector[places])
        assert np.abs(own[places]).min() >= np.abs(np.delete(vector, places)).max()


@pytest.mark.parametrize("rank", [1, 2])
def test_the_sum_of_what_is_sent_has_a_low_rank(rank):
    vectors = gradients(0)
    sent, num_bytes = script.PowerSGD(SLOTS, rank)(vectors)
    assert num_bytes == 4 * (rank * (6 + 18) + rank * (30 + 10) + 10)
    filters, weights, biases = (slot.of(sum(sent)) for slot in SLOTS)
    assert np.linalg.matrix_rank(filters.reshape(6, 18), tol=1e-5) == rank
    assert np.linalg.matrix_rank(weights, tol=1e-5) == rank
    np.testing.assert_array_equal(biases, SLOTS[2].of(sum(vectors)))


def test_a_matrix_of_that_rank_is_sent_whole_in_the_second_step():
    """The columns that the first step has found are those of the matrix."""
    column, row = np.random.default_rng(0).standard_normal((2, 30))
    vector = np.zeros(418, np.float32)
    SLOTS[1].of(vector)[...] = np.outer(column, row[:10])
    compress = script.PowerSGD(SLOTS, 1)
    for _ in range(2):
        sent, _ = compress([vector] * 4)
    np.testing.assert_allclose(sent[3], vector, atol=1e-5)


@pytest.mark.parametrize("compress", [script.top_k(0.05), script.PowerSGD(SLOTS, 2)])
def test_what_is_not_sent_is_kept(compress):
    """Of all steps together nothing is lost, in whichever order the workers compute."""
    flat = np.zeros(418, np.float32)
    reducer = make_reducer("exact", SerialCommunicator(), flat, 1, num_contributions=4)
    compressed = script.Compressed(reducer, flat, compress)
    given, arrived = np.zeros(418), np.zeros(418)
    for step, order in enumerate(([0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0])):
        compressed.start(order)
        for worker in order:
            flat[:] = gradients(step)[worker]
            compressed.ready(0)
            given += flat
            compressed.add(worker, np.ones(1))
        total, tally = compressed.finish()
        assert tally[0] == 4
        arrived += total
    assert compressed.bytes_of_steps == [compressed.bytes_of_steps[0]] * 3
    np.testing.assert_allclose(arrived + sum(compressed._kept), given, atol=1e-5)
    assert np.abs(arrived - given).max() > 0.01
