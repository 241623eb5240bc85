"""Initial values: their widths (book section 6.2), and that they depend on the seed alone."""

import numpy as np
import pytest

from distnet.nn import BatchNorm, Conv2d, Layer, Linear, Network, ReLU, Sigmoid
from distnet.nn.initializers import constant, gaussian, he, weight_initializer, xavier


def draw(init, shape=(200, 500), seed=0):
    return init(np.random.default_rng(seed), shape)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        (he(50), 0.2),
        (xavier(25), 0.2),
        (gaussian(0.01), 0.01),
        (weight_initializer("he", 8), 0.5),
        (weight_initializer("xavier", 4), 0.5),
        (weight_initializer("xavier_sigmoid", 64), 0.5),
        (weight_initializer(0.3, 1000), 0.3),
    ],
)
def test_widths(init, std):
    values = draw(init)
    assert values.std() == pytest.approx(std, rel=0.02)
    assert abs(values.mean()) < 5 * std / np.sqrt(values.size)
    assert abs(values).max() > 3.5 * std  # not uniform, not truncated


def test_constant():
    np.testing.assert_array_equal(draw(constant(3), (2, 2)), [[3, 3], [3, 3]])


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match=r"found init 'hee', expected 'he', .* or a standard deviation"
    ):
        weight_initializer("hee", 3)


@pytest.mark.parametrize(
    ("layer", "shape", "fan_in"),
    [(Conv2d(64, (3, 5)), (8, 6, 6), 120), (Linear(300), (3, 5, 4), 60), (Linear(300), (60,), 60)],
)
def test_layers_count_their_fan_in(layer, shape, fan_in):
    net = Network([layer], shape)
    assert layer.weight.value.std() == pytest.approx(np.sqrt(2 / fan_in), rel=0.03)
    np.testing.assert_array_equal(layer.bias.value, 0)
    assert net.parameters.values.dtype == np.float32


def values(seed=0, extra: list[Layer] | None = None, dtype=np.float32):
    layers = [Conv2d(4, 3), BatchNorm(), ReLU(), Linear(5), *(extra or [])]
    return Network(layers, (2, 6, 6), seed=seed, dtype=dtype).parameters.values


def test_values_are_a_function_of_the_seed():
    state = np.random.get_state()[1].copy()  # noqa: NPY002  the global state is what must not change
    np.testing.assert_array_equal(values(3), values(3))
    assert np.mean(values(3) == values(4)) < 0.1  # biases, gamma and beta
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_values_do_not_depend_on_later_layers_or_precision():
    alone = values(3)
    np.testing.assert_array_equal(values(3, [ReLU(), Linear(2)])[: alone.size], alone)
    np.testing.assert_array_equal(values(3, dtype=np.float64).astype(np.float32), alone)


def test_layers_of_the_same_shape_start_differently():
    first, second = Linear(6), Linear(6)
    Network([first, second], (6,))
    assert np.mean(first.weight.value == second.weight.value) == 0


# Activations of the fifth of five layers of 100 (book section 6.2.2 and 6.2.3).


def fifth_activations(activation, init):
    layers = [layer for _ in range(5) for layer in (Linear(100, init=init), activation())]
    return Network(layers, (100,)).predict(np.random.default_rng(0).standard_normal((1000, 100)))


def test_sigmoid_saturates_with_wide_weights_and_agrees_with_narrow_ones():
    wide = fifth_activations(Sigmoid, 1.0)
    assert np.mean((wide < 0.05) | (wide > 0.95)) > 0.5
    assert fifth_activations(Sigmoid, 0.01).std() < 0.03
    assert 0.1 < fifth_activations(Sigmoid, "xavier").std() < 0.2


def test_only_he_keeps_the_scale_of_relu():
    assert fifth_activations(ReLU, 0.01).std() < 1e-3
    assert fifth_activations(ReLU, "xavier").std() < 0.3
    assert 0.5 <= fifth_activations(ReLU, "he").std() <= 1.2
