"""BatchNorm: per channel, against the formula in float64, and its statistics over micro-batches."""

import tracemalloc

import numpy as np
import pytest
from layer_table import build, images

from distnet.nn import BatchNorm, Linear, MicroBatch, Network
from distnet.nn.joining import joined
from distnet.objectives import Classification
from distnet.parallel.sums.fixed_point import WideFixedPoint

SHAPES = [(6, 3, 4, 5), (8, 4), (550, 8, 2, 3)]
in_all_shapes = pytest.mark.parametrize("shape", SHAPES, ids=["images", "vectors", "long_runs"])


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


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bits_are_those_of_operations_on_each_channel(shape):
    """However often a channel's numbers are repeated beside its pixels."""
    layer, x = build(BatchNorm(), shape[1:], np.float32), skewed(shape, np.float32)
    y = layer.forward(x, at=MicroBatch()).copy()
    normalized, inverse_std = layer.normalized, layer.inverse_std
    dy = images(shape, np.float32, 1)
    dx = layer.backward(dy)
    gamma, beta = (p.value.astype(np.float32) for p in (layer.gamma, layer.beta))
    terms = (p.grad / (x.size // shape[1]) for p in (layer.beta, layer.gamma))
    mean, slope = (per_channel(each.astype(np.float32), x.ndim) for each in terms)
    gamma, beta = per_channel(gamma, x.ndim), per_channel(beta, x.ndim)
    if x.ndim == 4:
        inverse_std = inverse_std[..., :1]
    np.testing.assert_array_equal(y, normalized * gamma + beta)
    expected = (dy - mean - normalized * slope) * (gamma * inverse_std)
    np.testing.assert_array_equal(dx, expected)


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
    mean, var = (per_channel(s.value, x.ndim) for s in (layer.running_mean, layer.running_var))
    gamma, beta = (per_channel(p.value, x.ndim) for p in (layer.gamma, layer.beta))
    expected = gamma * (x - mean) / np.sqrt(var + layer.eps) + beta
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12, atol=1e-12)


def test_variances_start_at_one():
    net = Network([BatchNorm(eps=0), Linear(2)], (3,), dtype=np.float64)
    layer, x = net.body.layers[0], images((4, 3))
    np.testing.assert_array_equal(layer.running_mean.value, 0)
    np.testing.assert_array_equal(layer.running_var.value, 1)
    np.testing.assert_array_equal(layer.forward(x), x)


# Statistics: a network's flat vectors.


def network(shape, momentum=0.9, **options):
    layers = [BatchNorm(momentum=momentum, **options), Linear(2), BatchNorm(), Linear(2)]
    return Network(layers, shape[1:], dtype=np.float64)


def sums_over(net, x, cuts):
    """What the micro-batches of one global batch contribute together."""
    total = np.zeros_like(net.parameters.batch_statistics)
    for m, part in enumerate(np.split(x, cuts)):
        train = MicroBatch(number=m, share=len(part) / len(x))
        Classification(net).gradients(part, np.zeros(len(part), int), train, len(x))
        total += net.parameters.batch_statistics
    return total


def moments(x, ddof):
    axes = (0, 2, 3)[: x.ndim - 1]
    return x.mean(axis=axes), x.var(axis=axes, ddof=ddof)


@in_all_shapes
@pytest.mark.parametrize("cuts", [[], [2], [1, 3, 4]])
@pytest.mark.parametrize(("options", "ddof"), [({}, 1), ({"unbiased": False}, 0)])
def test_running_moments_follow_those_of_the_global_batch(shape, cuts, options, ddof):
    """running = momentum running + (1 - momentum) of the batch, however that is cut."""
    net, means, variances = network(shape, momentum=0.75, **options), 0.0, 1.0
    layer = net.body.layers[0]
    for step in range(4):
        x = skewed(shape, seed=step) + step
        net.parameters.update_statistics(sums_over(net, x, cuts))
        mean, var = moments(x, ddof)
        means, variances = 0.75 * means + 0.25 * mean, 0.75 * variances + 0.25 * var
        np.testing.assert_allclose(layer.running_mean.value, means, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var.value, variances, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cuts", [[], [30, 60]])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 100.0])
@pytest.mark.parametrize("ratio", [100, -10_000])
def test_the_mean_may_be_far_larger_than_the_spread(dtype, cuts, scale, ratio):
    """And evaluation of a feature one deviation above its mean is one, but for eps.

    The sums of the micro-batches are taken as the reducer takes them.
    """
    net = Network([BatchNorm(momentum=0.5)], (1,), dtype=dtype)
    layer, variances = net.body.layers[0], 1.0
    summed = WideFixedPoint(10, net.parameters.batch_statistics.size)
    for step in range(40):
        words = np.zeros((2, net.parameters.batch_statistics.size), np.int64)
        x = (scale * (ratio + np.random.default_rng(step).standard_normal((90, 1)))).astype(dtype)
        for part in np.split(x, cuts):
            net.forward(part, MicroBatch(share=len(part) / len(x)))
            assert summed.add(words, net.parameters.batch_statistics[None])
        total = np.empty(words.shape[1])
        summed.to_float(words, total)
        net.parameters.update_statistics(total)
        variances = 0.5 * variances + 0.5 * x.var(ddof=1, dtype=np.float64)
        np.testing.assert_allclose(layer.running_var.value, variances, rtol=1e-5)
    x = np.array([[scale * (ratio + 1)]], dtype)
    mean, var = layer.running_mean.value, layer.running_var.value
    expected = (x.astype(np.float64) - mean) / np.sqrt(var + layer.eps)
    np.testing.assert_allclose(net.predict(x), expected, atol=1e-5)


def test_values_are_those_of_pytorch():
    """torch.nn.BatchNorm1d(2), float64: ten training steps on these features, then evaluation."""
    net = Network([BatchNorm()], (2,), dtype=np.float64)
    for step in range(10):
        x = np.array([[0.0, 100], [1, 103], [3, 99], [step, 101]])
        net.forward(x, MicroBatch())
        net.parameters.update_statistics(net.parameters.batch_statistics.copy())
    layer = net.body.layers[0]
    np.testing.assert_allclose(
        layer.running_mean.value, [1.5230176601500003, 65.62064715992501], rtol=1e-7
    )
    np.testing.assert_allclose(
        layer.running_var.value, [5.264572721150001, 2.248366323141667], rtol=1e-7
    )
    found = net.predict(np.array([[2.0, 101], [0, 99]]))
    np.testing.assert_allclose(
        found,
        [[0.20788364480986998, 23.594750152003563], [-0.6637781650392942, 22.260935468696115]],
        rtol=1e-6,
    )


def test_running_variance_becomes_that_of_the_batch():
    """Without momentum, evaluation of the batch is what training made of it."""
    net, x = network((8, 4), momentum=0.0, unbiased=False), skewed((8, 4))
    net.parameters.update_statistics(sums_over(net, x, [2, 3]))
    layer = net.body.layers[0]
    trained = layer.forward(x, at=MicroBatch()).copy()
    np.testing.assert_allclose(layer.forward(x), trained, rtol=1e-10, atol=1e-10)


def test_one_value_a_channel_has_no_variance():
    net = Network([BatchNorm(momentum=0)], (3,), dtype=np.float64)
    net.forward(np.array([[1.0, 2, 3]]), MicroBatch())
    net.parameters.update_statistics(net.parameters.batch_statistics.copy())
    layer = net.body.layers[0]
    np.testing.assert_array_equal(layer.running_mean.value, [1, 2, 3])
    np.testing.assert_array_equal(layer.running_var.value, 0)


def test_each_layer_moves_with_its_own_momentum():
    net, x = network((8, 4), momentum=0.5), skewed((8, 4))
    net.parameters.update_statistics(sums_over(net, x, []))
    first, _, second, _ = net.body.layers
    mean, var = moments(x, ddof=1)
    np.testing.assert_allclose(first.running_mean.value, 0.5 * mean)
    np.testing.assert_allclose(first.running_var.value, 0.5 + 0.5 * var)
    hidden = net.body.layers[1].forward(first.forward(x, at=MicroBatch()))
    mean, var = moments(hidden, ddof=1)
    np.testing.assert_allclose(second.running_mean.value, 0.1 * mean, atol=1e-15)
    np.testing.assert_allclose(second.running_var.value, 0.9 + 0.1 * var)


def test_a_batch_without_training_moves_nothing():
    net = network((8, 4))
    running = net.parameters.statistics.copy()
    net.parameters.update_statistics(np.zeros_like(net.parameters.batch_statistics))
    np.testing.assert_array_equal(net.parameters.statistics, running)


def test_networks_in_one_vector_move_their_own_averages():
    x = {"a": skewed((8, 4)), "b": skewed((6, 3, 4, 5))}
    alone = {name: network(part.shape) for name, part in x.items()}
    for name, net in alone.items():
        net.forward(x[name], MicroBatch())
        net.parameters.update_statistics(net.parameters.batch_statistics.copy())
    together = {name: network(part.shape) for name, part in x.items()}
    parameters = joined(**together)
    for name, net in together.items():
        net.forward(x[name], MicroBatch())
    parameters.update_statistics(parameters.batch_statistics.copy())
    for name, net in alone.items():
        for statistic, value in net.parameters.named_statistics().items():
            found = parameters.named_statistics()[f"{name}.{statistic}"]
            np.testing.assert_array_equal(found, value)
            np.testing.assert_array_equal(
                together[name].parameters.named_statistics()[statistic], value
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
        "batchnorm1.running_var": (4,),
        "batchnorm2.running_mean": (2,),
        "batchnorm2.running_var": (2,),
    }
    assert all(
        np.shares_memory(v, net.parameters.statistics)
        for v in net.parameters.named_statistics().values()
    )
    names = [net.parameters.statistic_at(i) for i in range(net.parameters.batch_statistics.size)]
    kinds = ["batchnorm1.running_mean", "batchnorm1.running_var", "batchnorm2.running_mean"]
    assert (
        names == [kinds[0]] * 4 + [kinds[1]] * 5 + [kinds[2]] * 2 + ["batchnorm2.running_var"] * 3
    )


@pytest.mark.parametrize("shape", [(16, 32, 32, 32), (200, 1000)])
def test_the_steady_state_allocates_no_array_of_the_batch(shape):
    layer, x = build(BatchNorm(), shape[1:], np.float32), skewed(shape, np.float32)

    def step():
        layer.forward(x, at=MicroBatch())
        layer.backward(x)

    step()
    tracemalloc.start()
    try:
        step()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes / 4  # NumPy casts by blocks of 64 KB
