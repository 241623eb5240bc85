"""BatchNorm: per channel, against the formula in float64, and its statistics over micro-batches."""

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import BatchNorm, Linear, MicroBatch, Network
from distnet.objectives import Classification

SHAPES = [(6, 3, 4, 5), (8, 4)]
in_all_shapes = pytest.mark.parametrize("shape", SHAPES, ids=["images", "vectors"])


def skewed(shape, dtype=np.float64, seed=0):
    """Channels of different means and widths."""
    scale = np.arange(1, shape[1] + 1).reshape(-1, *(1,) * (len(shape) - 2))
    x = images(shape, np.float64, seed)
    x *= scale
    x += 3 * scale
    return x.astype(dtype)


def per_channel(values, ndim):
    return np.reshape(values, (-1, *(1,) * (ndim - 2)))


def formula(x, gamma, beta, eps):
    """Ioffe & Szegedy 2015, algorithm 1, channel by channel."""
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        channel = x[:, c].astype(np.float64)
        y[:, c] = gamma[c] * (channel - channel.mean()) / np.sqrt(channel.var() + eps) + beta[c]
    return y


@in_all_shapes
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_training_normalises_each_channel(shape, dtype, tolerance):
    layer, x = build(BatchNorm(), shape[1:], dtype), skewed(shape, dtype)
    y = layer.forward(x, at=MicroBatch())
    expected = formula(x, layer.gamma.value, layer.beta.value, layer.eps)
    np.testing.assert_allclose(y, expected, atol=tolerance * np.abs(expected).max())


@in_all_shapes
def test_one_mean_and_one_deviation_for_each_channel(shape):
    net = Network([BatchNorm(eps=0), Linear(2)], shape[1:], dtype=np.float64)
    layer = net.body.layers[0]
    assert layer.running_var.shape == layer.gamma.shape == (shape[1],)
    y = layer.forward(skewed(shape), at=MicroBatch())
    axes = (0, 2, 3)[: len(shape) - 1]
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-13)
    np.testing.assert_allclose(y.std(axis=axes), 1, rtol=1e-12)


@in_all_shapes
def test_evaluation_uses_the_running_moments(shape):
    layer, x = build(BatchNorm(), shape[1:]), skewed(shape)
    mean, var = layer.running_mean.value, layer.running_var
    np.testing.assert_array_equal(var, layer.running_square.value - mean**2)
    normalized = (x - per_channel(mean, x.ndim)) / np.sqrt(per_channel(var, x.ndim) + layer.eps)
    gamma, beta = (per_channel(p.value, x.ndim) for p in (layer.gamma, layer.beta))
    np.testing.assert_allclose(layer.forward(x), gamma * normalized + beta, rtol=1e-12, atol=1e-12)


def test_variances_start_at_one():
    net = Network([BatchNorm(eps=0), Linear(2)], (3,), dtype=np.float64)
    layer, x = net.body.layers[0], images((4, 3))
    np.testing.assert_array_equal(layer.running_mean.value, 0)
    np.testing.assert_array_equal(layer.running_var, 1)
    np.testing.assert_array_equal(layer.forward(x), x)


def test_a_variance_is_never_negative():
    layer = build(BatchNorm(), (2,))
    layer.running_square.value[...] = layer.running_mean.value**2 * (1 - 1e-15)
    assert (layer.running_var >= 0).all()
    assert np.isfinite(layer.forward(images((3, 2)))).all()


# Statistics: a network's flat vectors.


def network(shape, momentum=0.9):
    layers = [BatchNorm(momentum=momentum), Linear(2), BatchNorm(), Linear(2)]
    return Network(layers, shape[1:], dtype=np.float64)


def sums_over(net, x, cuts):
    """What the micro-batches of one global batch contribute together."""
    total = np.zeros_like(net.parameters.statistics)
    for m, part in enumerate(np.split(x, cuts)):
        train = MicroBatch(number=m, share=len(part) / len(x))
        Classification(net).gradients(part, np.zeros(len(part), int), train, len(x))
        total += net.parameters.batch_statistics
    return total


@in_all_shapes
@pytest.mark.parametrize("cuts", [[], [2], [1, 3, 4]])
def test_statistics_of_micro_batches_add_up_to_those_of_the_batch(shape, cuts):
    net, x = network(shape), skewed(shape)
    total = sums_over(net, x, cuts)
    axes = (0, 2, 3)[: x.ndim - 1]
    moments = np.concatenate([x.mean(axis=axes), (x**2).mean(axis=axes)])
    np.testing.assert_allclose(total[: moments.size], moments, rtol=1e-13)

    net.parameters.update_statistics(total)
    start = np.repeat([0.0, 1.0], shape[1])
    np.testing.assert_allclose(
        net.parameters.statistics[: moments.size], 0.9 * start + 0.1 * moments, rtol=1e-13
    )


def test_a_micro_batch_is_the_whole_batch_unless_told_otherwise():
    net, x = network((8, 4)), skewed((8, 4))
    Classification(net).gradients(x, np.zeros(8, int), MicroBatch())
    np.testing.assert_allclose(net.parameters.batch_statistics[:4], x.mean(axis=0), rtol=1e-13)


@in_all_shapes
def test_running_variance_becomes_that_of_the_batch(shape):
    net, x = network(shape, momentum=0.0), skewed(shape)
    net.parameters.update_statistics(sums_over(net, x, [2, 3]))
    axes = (0, 2, 3)[: x.ndim - 1]
    layer = net.body.layers[0]
    np.testing.assert_allclose(layer.running_mean.value, x.mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, x.var(axis=axes), rtol=1e-12)
    trained = layer.forward(x, at=MicroBatch()).copy()
    np.testing.assert_allclose(layer.forward(x), trained, rtol=1e-10, atol=1e-10)


def test_each_layer_moves_with_its_own_momentum():
    net, x = network((8, 4), momentum=0.5), skewed((8, 4))
    before = net.parameters.statistics.copy()
    total = sums_over(net, x, [])
    net.parameters.update_statistics(total)
    kept = np.repeat([0.5, 0.9], [8, 4])  # mean and square of 4 channels, then of 2
    np.testing.assert_allclose(
        net.parameters.statistics, kept * before + (1 - kept) * total, rtol=1e-13
    )


def test_evaluation_changes_no_statistics():
    net, x = network((8, 4)), skewed((8, 4))
    sums_over(net, x, [])
    running, batch = net.parameters.statistics.copy(), net.parameters.batch_statistics.copy()
    net.predict(x)
    np.testing.assert_array_equal(net.parameters.statistics, running)
    np.testing.assert_array_equal(net.parameters.batch_statistics, batch)


def test_names_of_statistics():
    net = network((8, 4))
    assert {name: value.shape for name, value in net.parameters.named_statistics().items()} == {
        "batchnorm1.running_mean": (4,),
        "batchnorm1.running_square": (4,),
        "batchnorm2.running_mean": (2,),
        "batchnorm2.running_square": (2,),
    }
    assert all(
        np.shares_memory(v, net.parameters.statistics)
        for v in net.parameters.named_statistics().values()
    )
