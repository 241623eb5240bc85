"""Scratch: memory that layers overlay, which no layer may mistake for its own."""

import numpy as np
import pytest
from layer_table import images

from distnet.nn import Conv2d, MicroBatch, Network, ReLU
from distnet.nn.scratch import Scratch


def test_arrays_taken_together_are_disjoint_and_of_the_asked_sizes():
    scratch = Scratch()
    scratch.reserve(5, 0, 1000, 3, dtype=np.float32)
    arrays = scratch.take(5, 0, 1000, 3, dtype=np.float32)
    assert [a.size for a in arrays] == [5, 0, 1000, 3]
    for i, array in enumerate(arrays):
        array[...] = i
    assert all((array == i).all() for i, array in enumerate(arrays))


def test_arrays_taken_later_overlay_the_same_memory():
    scratch = Scratch()
    scratch.reserve(10, dtype=np.float64)
    scratch.reserve(3, 4, dtype=np.float32)
    (first,) = scratch.take(10, dtype=np.float64)
    second, third = scratch.take(3, 4, dtype=np.float32)
    assert np.shares_memory(first, second)
    assert np.shares_memory(first, third)


def test_a_later_reservation_leaves_what_was_taken_usable():
    scratch = Scratch()
    scratch.reserve(4, dtype=np.float64)
    (early,) = scratch.take(4, dtype=np.float64)
    early[...] = 7
    scratch.reserve(4000, dtype=np.float64)
    (late,) = scratch.take(4000, dtype=np.float64)
    late[...] = 8
    np.testing.assert_array_equal(early, 7)


@pytest.mark.parametrize("algorithm", ["winograd2", "winograd4", "blocked"])
def test_layers_that_share_scratch_compute_what_they_compute_alone(algorithm):
    """Small before large and large before small, and batch sizes that grow."""

    def network():
        filters = (3, 9, 2, 7)
        layers = [m for f in filters for m in (Conv2d(f, 3, pad=1, algorithm=algorithm), ReLU())]
        return Network([*layers, Conv2d(1, 8)], (2, 8, 8))

    def run(net, n):
        y = net.body.forward(images((n, 2, 8, 8), np.float32), at=MicroBatch()).copy()
        net.body.backward(np.ones_like(y))
        return y, net.grads.copy()

    together, apart = network(), network()
    for layer in apart.body.layers:
        layer.scratch = Scratch()
    assert len({id(layer.scratch) for layer in together.body.layers}) == 1
    for n in (1, 5, 2, 9, 1):
        for found, expected in zip(run(together, n), run(apart, n), strict=True):
            np.testing.assert_array_equal(found, expected)
