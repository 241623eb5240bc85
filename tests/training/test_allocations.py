"""A training step in its steady state allocates no arrays but the pixels it gathers, and words."""

import tracemalloc

import pytest

from distnet.base.arithmetic import FLOAT, Portable
from distnet.benchmarks.networks import CASES, random_trainer

NUM_STEPS = 20
PIXEL_COPIES = 3  # of the bytes of one micro-batch: gathered, zero-padded, shifted


@pytest.mark.parametrize(
    ("name", "arithmetic"),
    [
        ("deep_convnet", FLOAT),
        ("simple_convnet", FLOAT),
        ("two_layer", FLOAT),
        ("deep_convnet", Portable()),
    ],
)
def test_steady_state_allocates_nothing(name, arithmetic):
    case, micro_batch_size = CASES[name], 25
    parts = random_trainer(case, 50, micro_batch_size, arithmetic=arithmetic)
    for step in range(3):
        parts.step(step)
    tracemalloc.start()
    try:
        parts.step(3)
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for step in range(4, 4 + NUM_STEPS):
            parts.step(step)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    pixels = PIXEL_COPIES * micro_batch_size * parts.feed.inputs[0].nbytes
    # What NumPy converts in blocks, twice as much in float64; a single array of the hidden layers
    # would take more.
    buffers = 16 * 1024 * parts.parameters.grads.itemsize
    assert peak - before < pixels + buffers
    # Nothing is left behind, apart from freed tuples that Python keeps for reuse.
    assert after - before < 64 * 1024
