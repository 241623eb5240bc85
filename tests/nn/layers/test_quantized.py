"""Quantize: which whole numbers, and the gradient of a straight line; Scale: units per channel."""

import numpy as np
import pytest
from layer_table import TRAIN, build, images

from distnet.nn import Quantize, Scale


def test_numbers_are_rounded_to_even_and_end_where_they_end():
    layer = build(Quantize(0.5, high=7), (9,))
    x = np.array([[-3.0, -0.2, 0, 0.24, 0.25, 0.75, 1.3, 3.5, 99]])
    np.testing.assert_array_equal(layer.forward(x), [[0, 0, 0, 0, 0, 2, 3, 7, 7]])
    signed = build(Quantize(0.5, low=-3, high=3), (4,))
    np.testing.assert_array_equal(signed.forward(np.array([[-9, -1, 1, 9.0]])), [[-3, -2, 2, 3]])


def test_pixels_are_the_bytes_that_they_were():
    layer = build(Quantize(1 / 255), (256,), np.float32)
    pixels = np.arange(256, dtype=np.float32)[None] * np.float32(1 / 255)
    np.testing.assert_array_equal(layer.forward(pixels), np.arange(256)[None])


@pytest.mark.parametrize("at", [None, TRAIN])
def test_backward_is_that_of_a_straight_line_between_the_ends(at):
    layer = build(Quantize(0.25, low=-4, high=4), (6,))
    layer.forward(np.array([[-9, -1, -0.8, 0.1, 0.84, 2]]), at=at)
    np.testing.assert_array_equal(layer.backward(np.ones((1, 6))), [[0, 0, 4, 4, 4, 0]])


def test_arguments():
    with pytest.raises(ValueError, match="Quantize: found scale 0, expected a number above 0"):
        Quantize(0)
    with pytest.raises(ValueError, match="Quantize: found high 3, expected "):
        Quantize(1, low=3, high=3)


def test_a_factor_for_each_channel():
    layer, x = build(Scale(), (2, 3, 4)), images((5, 2, 3, 4))
    layer.factor.value[...] = 2, -3
    np.testing.assert_array_equal(layer.forward(x), x * np.array([2, -3])[:, None, None])
