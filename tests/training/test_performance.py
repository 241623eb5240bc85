"""Throughput counts steady work only."""

import pytest

from distnet.training.watching.performance import Throughput


def test_throughput_is_of_steady_state():
    throughput = Throughput(num_warmup_steps=2)
    assert throughput.images_per_second == 0
    for seconds, expected in ((9, 100 / 9), (3, 200 / 12), (1, 100), (3, 200 / 4), (0, 300 / 4)):
        throughput.step(100, seconds)
        assert throughput.images_per_second == pytest.approx(expected)
