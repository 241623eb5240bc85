"""The outer step: DiLoCo's formula, and exactly the mean where it is to be."""

import numpy as np
import pytest

from distnet.optim.optimizers import BLOCK
from distnet.optim.outer import OuterNesterov

SIZE = BLOCK + 100


def vectors(num, dtype=np.float64):
    return np.random.default_rng(0).standard_normal((num, SIZE)).astype(dtype)


@pytest.mark.parametrize("lr, momentum", [(0.7, 0.9), (1.0, 0.5), (0.3, 0.0)])
def test_it_is_the_formula_of_the_paper(lr, momentum):
    outer = OuterNesterov(SIZE, lr, momentum, dtype=np.float64)
    start, *means = vectors(5)
    expected, velocity = start.copy(), np.zeros(SIZE)
    for mean in means:
        change = expected - mean
        velocity = momentum * velocity + change
        expected = expected - lr * (change + momentum * velocity)
        found = mean.copy()
        outer.step(start, found)
        start = found
        np.testing.assert_allclose(start, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(outer.state["velocity"], velocity, rtol=1e-12, atol=1e-12)


def test_rate_1_without_momentum_is_the_mean_to_the_last_bit():
    start, mean = vectors(2, np.float32)
    mean[::3] *= np.float32(1e-30)  # where start - (start - mean) would be 0
    mean[1] = -0.0
    found = mean.copy()
    OuterNesterov(SIZE, 1.0, 0.0).step(start, found)
    assert found.tobytes() == mean.tobytes()


@pytest.mark.parametrize("lr, momentum", [(-1, 0.9), (np.nan, 0.9), (0.7, 1.0), (0.7, -0.1)])
def test_numbers_that_make_no_sense_are_refused(lr, momentum):
    with pytest.raises(ValueError, match="outer step: found"):
        OuterNesterov(3, lr, momentum)
