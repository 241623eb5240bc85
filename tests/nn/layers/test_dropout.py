"""Dropout: which elements are kept is a function of the key alone, and the mean is preserved."""

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import Dropout, Linear, MicroBatch, Network

KEY = MicroBatch(seed=1, step=2, number=3)
SHAPE = (100, 500)


def dropped(layer, key, shape=SHAPE):
    """Which elements the layer sets to zero."""
    return layer.forward(np.ones(shape, layer.dtype), at=key) == 0


def make(ratio=0.5, index=0, shape=SHAPE[1:], dtype=np.float64):
    layer = build(Dropout(ratio), shape, dtype)
    layer.index = index
    return layer


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_rate_and_scale(ratio):
    layer = make(ratio)
    y = layer.forward(np.ones(SHAPE), at=KEY)
    deviation = np.sqrt(ratio * (1 - ratio) / y.size)
    assert abs(np.mean(y == 0) - ratio) <= 5 * deviation
    np.testing.assert_allclose(y[y != 0], 1 / (1 - ratio), rtol=1e-4)
    assert abs(y.mean() - 1) <= 5 * deviation / (1 - ratio)


def test_the_scale_is_the_inverse_of_the_rate_that_is_drawn():
    layer = make(0.1)  # 16-bit words cut at 6554 of 65536
    y = layer.forward(np.ones(SHAPE), at=KEY)
    np.testing.assert_array_equal(np.unique(y), [0, 65536 / (65536 - 6554)])


def test_a_ratio_of_zero_keeps_everything():
    """A million 16-bit words: some fifteen are zero."""
    assert not dropped(make(0.0, shape=(1000,)), KEY, (1000, 1000)).any()


def test_a_ratio_of_nearly_one_keeps_something():
    y = make(1 - 1e-9, shape=(1000,)).forward(np.ones((1000, 1000)), at=KEY)
    np.testing.assert_array_equal(np.unique(y), [0, 65536])


def test_elements_are_dropped_independently():
    """Neighbours come from the same 64-bit word and must not be alike."""
    zero = dropped(make(), KEY).ravel().astype(float)
    for distance in (1, 2, 3, 4, 500):
        both = np.corrcoef(zero[:-distance], zero[distance:])[0, 1]
        assert abs(both) < 5 / np.sqrt(zero.size), distance


@pytest.mark.parametrize("field", ["seed", "step", "number"])
def test_every_part_of_the_key_counts(field):
    layer = make()
    one = dropped(layer, KEY).copy()
    other = dropped(layer, KEY._replace(**{field: getattr(KEY, field) + 1}))
    assert abs(np.mean(one == other) - 0.5) < 0.02


def test_layers_differ():
    agreement = np.mean(dropped(make(index=0), KEY) == dropped(make(index=1), KEY))
    assert abs(agreement - 0.5) < 0.02


def test_the_layers_of_a_network_have_different_keys():
    first, second = Dropout(0.5), Dropout(0.5)
    Network([first, Linear(7), second], (7,))
    assert first.index != second.index


def test_the_mask_is_a_function_of_the_key_alone():
    alone = dropped(make(), KEY).copy()
    layer = make(dtype=np.float32)
    for other in (KEY._replace(step=9), KEY._replace(number=0)):
        dropped(layer, other)
    dropped(layer, KEY, (3, 500))
    np.testing.assert_array_equal(dropped(layer, KEY), alone)
    np.testing.assert_array_equal(dropped(layer, KEY._replace(share=0.1)), alone)


def test_the_mask_of_images_does_not_depend_on_their_memory_order():
    shape = (4, 3, 5, 2)
    layer = make(shape=shape[1:])
    x = images(shape)
    one = layer.forward(x, at=KEY).copy()
    np.testing.assert_array_equal(one, layer.forward(np.ascontiguousarray(x), at=KEY))
    flat = dropped(make(shape=(30,)), KEY, (4, 30))
    np.testing.assert_array_equal(one.reshape(4, 30) == 0, flat)


def test_evaluation_is_the_identity():
    layer, x = make(), images(SHAPE)
    layer.forward(x, at=KEY)
    np.testing.assert_array_equal(layer.forward(x), x)
    np.testing.assert_array_equal(layer.backward(x), x)


@pytest.mark.parametrize("ratio", [-0.1, 1, 1.5, float("nan")])
def test_impossible_ratios_are_refused(ratio):
    with pytest.raises(ValueError, match=rf"Dropout: found ratio {ratio}"):
        Dropout(ratio)
