"""MaxUnpool2d: where values go, which pooling it undoes, and that copies keep the pairs."""

import copy
import json
import pickle

import numpy as np
import pytest
from layer_table import TRAIN, build, images

from distnet.nn import Conv2d, MaxPool2d, MaxUnpool2d, Network, ReLU, Residual, Sequential, Tanh
from distnet.nn.description import describe, rebuild

WINDOWS = [
    ({"kernel": 2}, (2, 4, 6)),
    ({"kernel": 2}, (2, 5, 7)),
    ({"kernel": 3, "stride": 2, "pad": 1}, (3, 5, 6)),
    ({"kernel": (2, 3), "stride": (1, 2), "ceil_mode": True}, (2, 4, 6)),
]
of_all_windows = pytest.mark.parametrize(("options", "shape"), WINDOWS, ids=map(str, range(4)))


def pair(options, shape):
    """A pooling and what undoes it, built, and the two as one layer."""
    pool, unpool = MaxPool2d(**options), MaxUnpool2d()
    return pool, unpool, build(Sequential([pool, unpool]), shape)


def in_twos(shape, seed=0):
    """Numbers of which about every other one is there twice."""
    return np.round(2 * images(shape, seed=seed))


@of_all_windows
def test_a_value_goes_where_the_gradient_of_the_pooling_goes(options, shape):
    """Also where pixels of a window are equal, which is the rule of the pooling."""
    pool, unpool, _ = pair(options, shape)
    y = pool.forward(in_twos((3, *shape)))
    values = images(y.shape, seed=1)
    expected = pool.backward(values).copy()
    np.testing.assert_array_equal(unpool.forward(values), expected)
    assert np.count_nonzero(expected) <= values.size


@of_all_windows
def test_its_gradient_is_what_lies_at_the_maxima(options, shape):
    pool, unpool, _ = pair(options, shape)
    x = in_twos((3, *shape))
    y = pool.forward(x).copy()
    unpool.forward(y)
    np.testing.assert_array_equal(unpool.backward(x), y)
    values, dy = images(y.shape, seed=1), images(x.shape, seed=2)
    there, back = unpool.forward(values), unpool.backward(dy)
    assert np.vdot(there, dy) == pytest.approx(np.vdot(values, back))


def test_windows_that_overlap_add_up():
    pool, unpool, _ = pair({"kernel": (1, 2), "stride": 1}, (1, 1, 3))
    pool.forward(np.array([[[[1.0, 9.0, 2.0]]]]))
    np.testing.assert_array_equal(unpool.forward(np.array([[[[3.0, 4.0]]]])), [[[[0, 7, 0]]]])


def test_the_numbers_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    shape, dtype = (3, 6, 9), np.float64
    layers = [Conv2d(4, 3, pad=1), MaxPool2d(2), Tanh(), MaxPool2d((1, 2)), Conv2d(4, 1)]
    layers += [MaxUnpool2d(), Tanh(), MaxUnpool2d(), Conv2d(2, 3, pad=1)]
    net = Network(layers, shape, dtype=dtype)
    x, dy = images((2, *shape)), images((2, 2, *shape[1:]), seed=1)
    y = net.forward(x, TRAIN).copy()
    dx = net.backward(dy, need_dx=True)

    def tensor(array):
        return torch.from_numpy(np.ascontiguousarray(array))

    there = {name: tensor(value).requires_grad_() for name, value in net.parameters.named().items()}
    given = tensor(x).requires_grad_()
    ops = torch.nn.functional
    full = ops.conv2d(given, there["conv1.weight"], there["conv1.bias"], padding=1)
    half, first = ops.max_pool2d(full, 2, return_indices=True)
    half = torch.tanh(half)
    quarter, second = ops.max_pool2d(half, (1, 2), return_indices=True)
    quarter = ops.conv2d(quarter, there["conv2.weight"], there["conv2.bias"])
    up = torch.tanh(ops.max_unpool2d(quarter, second, (1, 2), output_size=half.shape))
    up = ops.max_unpool2d(up, first, 2, output_size=full.shape)
    expected = ops.conv2d(up, there["conv3.weight"], there["conv3.bias"], padding=1)
    expected.backward(tensor(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=1e-10, atol=1e-12)
    for slot in net.parameters.slots:
        found = slot.of(net.parameters.grads)
        np.testing.assert_allclose(found, there[slot.name].grad.numpy(), rtol=1e-10, atol=1e-12)


# Which pooling belongs to which unpooling.


def autoencoder():
    """As SegNet in small; both poolings would be one with their convolutions, if not undone."""
    layers = [
        Conv2d(16, 3, pad=1),
        MaxPool2d(2),
        ReLU(),
        Conv2d(16, 3, pad=1),
        MaxPool2d(2),
        ReLU(),
    ]
    layers += [MaxUnpool2d(), Conv2d(16, 3, pad=1), ReLU(), MaxUnpool2d(), Conv2d(1, 3, pad=1)]
    return Network(layers, (1, 12, 8))


def step(net):
    y = net.forward(images((3, *net.input_shape), net.dtype), TRAIN).copy()
    net.backward(images(y.shape, net.dtype, seed=1))
    return y, net.parameters.grads.copy()


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "description": lambda net: described(net),
}


def described(net):
    other = rebuild(json.loads(json.dumps(describe(net))))
    other.parameters.load(net.parameters.named())
    return other


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_has_the_same_pairs(copied):
    net = autoencoder()
    expected, other = step(net), copied(net)
    for found, value in zip(step(other), expected, strict=True):
        np.testing.assert_array_equal(found, value)
    layers = other.body.layers
    assert (layers[6].pool, layers[9].pool) == (layers[4], layers[1])
    assert str(net) == str(other)


def test_a_pooling_that_is_undone_runs_by_itself():
    names = [stage.name for stage in autoencoder().body.stages]
    assert names[:2] == ["conv1", "pool1"]
    alone = Network([Conv2d(16, 3, pad=1), MaxPool2d(2)], (1, 12, 8))
    assert [stage.name for stage in alone.body.stages] == ["conv1+pool1"]


def test_poolings_may_be_left_over():
    pools = [MaxPool2d(2), MaxPool2d(3)]
    unpool = MaxUnpool2d()
    Network([*pools, unpool], (1, 12, 12))
    assert unpool.pool is pools[1]
    assert [pool.is_undone for pool in pools] == [False, True]


def test_layers_of_a_network_that_could_not_be_built_have_no_pair():
    pool, unpool = MaxPool2d(2), MaxUnpool2d()
    with pytest.raises(ValueError, match="does not fit"):
        Network([pool, unpool, Conv2d(1, 9)], (1, 4, 4))
    with pytest.raises(ValueError, match="found no MaxPool2d"):
        Network([unpool], (1, 4, 4))
    Network([pool], (1, 4, 4))
    assert not pool.is_undone


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: [MaxUnpool2d(), MaxPool2d(2)], "^unpool1, whose input is .*found no MaxPool2d"),
        (lambda: [MaxPool2d(2), MaxUnpool2d(), MaxUnpool2d()], "^unpool2, whose .*not undone"),
        (lambda: [MaxPool2d(2), Residual([MaxUnpool2d()])], "in the same list of layers"),
        (lambda: [MaxPool2d(2), Conv2d(3, 1), MaxUnpool2d()], "found images of 3 x 4 x 4, "),
        (lambda: [MaxPool2d(2), Conv2d(1, 2), MaxUnpool2d()], "has made, 1 x 4 x 4"),
    ],
)
def test_no_pair_is_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        Network(layers(), (1, 8, 8))
