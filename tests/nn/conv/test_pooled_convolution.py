"""A convolution and the pooling behind it as one layer, against the two called one by one."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_table import images

from distnet.models import DeepConvNet
from distnet.nn import Conv2d, MaxPool2d, Network, ReLU, Sequential, layout
from distnet.nn.conv.choice import ALGORITHMS
from distnet.nn.conv.geometry import Geometry

POOLING = [n for n, a in ALGORITHMS.items() if a.pooled(Geometry(3, 6, 6, 3, (3, 3)))]


def build(algorithm, shape, pad, kernel=3, stride=1, bias=True):
    """The pair in a network, with biases that are not zero; the network's convolution alone."""
    conv = Conv2d(3, kernel, stride=stride, pad=pad, bias=bias, algorithm=algorithm)
    net = Network([conv, MaxPool2d(2)], shape, dtype=np.float64)
    values = net.parameters.values
    # Another stream than any image's: with equal numbers in both there would be ties.
    values[:] = np.random.default_rng(1000).standard_normal(values.size)
    net.parameters.refresh()
    return net, *net.body.layers


@settings(max_examples=200)
@given(
    st.sampled_from(POOLING),
    st.tuples(st.integers(1, 4), st.integers(2, 12), st.integers(2, 12)),
    st.integers(1, 2),
    st.integers(2, 4),
    st.integers(1, 2),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 9),
)
def test_equals_convolution_then_pooling(algorithm, shape, pad, kernel, stride, n, bias, seed):
    if algorithm.startswith("winograd"):
        stride = 1
        kernel = 5 if algorithm == "winograd2" and kernel == 4 else 3
    assume((min(shape[1:]) + 2 * pad - kernel) // stride >= 1)  # room for a window
    net, conv, pool = build(algorithm, shape, pad, kernel, stride, bias)
    x = images((n, *shape), seed=seed)
    dy = images((n, *net.output_shape), seed=seed + 1)

    pooled = pool.forward(conv.forward(x)).copy()
    dx = conv.backward(pool.backward(dy)).copy()
    gradient = net.parameters.grads.copy()
    net.parameters.grads.fill(0)

    for _ in range(2):  # the second time on arrays that hold the first
        np.testing.assert_allclose(net.body.forward(x), pooled, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(net.body.backward(dy), dx, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(net.parameters.grads, gradient, rtol=1e-11, atol=1e-11)
    oh, ow = conv.geometry.oh, conv.geometry.ow
    assert len(net.body.stages) == (2 if oh % 2 or ow % 2 else 1)


@pytest.mark.parametrize("algorithm", POOLING)
def test_of_equal_pixels_the_first_in_row_order_gets_the_gradient(algorithm):
    net, conv, _ = build(algorithm, (1, 8, 8), pad=1)
    conv.weight.value.fill(0)  # every pixel of the output is the bias, exactly
    net.parameters.refresh()
    net.body.forward(images((2, 1, 8, 8)))
    dy = images((2, 3, 4, 4))
    net.body.backward(dy)

    expected = np.zeros((2, 3, 8, 8))
    expected[:, :, ::2, ::2] = dy
    conv.forward(images((2, 1, 8, 8)))
    found = conv.weight.grad.copy()
    conv.backward(expected)
    np.testing.assert_allclose(found, conv.weight.grad, rtol=1e-11, atol=1e-11)


def test_gradients_in_any_memory_order():
    net, *_ = build("winograd4", (2, 8, 8), pad=1)
    x, dy = images((3, 2, 8, 8)), images((3, 3, 4, 4))
    net.body.forward(x)
    native = layout.empty(dy.shape, dy.dtype)
    native[...] = dy
    dx = net.body.backward(native).copy()
    np.testing.assert_array_equal(net.body.backward(np.ascontiguousarray(dy)), dx)


def test_new_parameters_reach_the_pair_and_its_parts():
    net, conv, pool = build("winograd4", (2, 8, 8), pad=1)
    x = images((3, 2, 8, 8))
    net.body.forward(x)
    conv.forward(x)
    net.parameters.values *= 2
    net.parameters.refresh()
    together = net.body.forward(x).copy()
    np.testing.assert_allclose(together, pool.forward(conv.forward(x)), rtol=1e-11, atol=1e-11)


def test_deep_convnet_pools_within_its_convolutions():
    names = [stage.name for stage in DeepConvNet().body.stages]
    assert [name for name in names if "pool" in name] == [
        "conv2+pool1",
        "conv4+pool2",
        "conv6+pool3",
    ]


@pytest.mark.parametrize(
    "layers",
    [
        [Conv2d(2, 7, pad=3), MaxPool2d(2)],  # blocked
        [Conv2d(2, 3, pad=1, stride=2), MaxPool2d(2)],
        [Conv2d(2, 3, pad=1), MaxPool2d(3)],
        [Conv2d(2, 3, pad=1), MaxPool2d(2, stride=1)],
        [Conv2d(2, 3, pad=1), ReLU(), MaxPool2d(2)],
        [Conv2d(2, 3, pad=1, algorithm="im2col"), MaxPool2d(2)],
    ],
)
def test_other_pairs_stay_two(layers):
    body = Sequential(layers)
    body.build((8, 8, 8))
    assert [stage.run for stage in body.stages] == layers
