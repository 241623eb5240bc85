"""The book's networks: sizes, names and order for weight files, other inputs, and learning."""

import numpy as np
import pytest

from distnet.models import DeepConvNet, SimpleConvNet, TwoLayerNet
from distnet.nn import Conv2d, Linear, MaxPool2d, MicroBatch, ReLU, layout
from distnet.objectives import Classification
from distnet.optim import make_optimizer

MODELS = [TwoLayerNet, SimpleConvNet, DeepConvNet]


def batch(shape, n=8, num_classes=10, seed=0):
    rng = np.random.default_rng(seed)
    x = layout.empty((n, *shape), np.float32)
    x[...] = rng.uniform(0, 1, x.shape)
    return x, rng.integers(0, num_classes, n)


@pytest.mark.parametrize(
    ("model", "count"), [(TwoLayerNet, 39_760), (SimpleConvNet, 433_890), (DeepConvNet, 123_552)]
)
def test_parameter_counts(model, count):
    assert model().parameters.values.shape == (count,)
    assert model().parameters.values.dtype == np.float32


def shapes(net):
    return {slot.name: slot.shape for slot in net.parameters.slots}


def test_slots_of_two_layer_net():
    assert shapes(TwoLayerNet()) == {
        "linear1.weight": (784, 50),
        "linear1.bias": (50,),
        "linear2.weight": (50, 10),
        "linear2.bias": (10,),
    }


def test_slots_of_simple_conv_net():
    assert shapes(SimpleConvNet()) == {
        "conv1.weight": (30, 1, 5, 5),
        "conv1.bias": (30,),
        "linear1.weight": (4320, 100),
        "linear1.bias": (100,),
        "linear2.weight": (100, 10),
        "linear2.bias": (10,),
    }


def test_slots_of_deep_conv_net():
    expected = {}
    channels = [1, 16, 16, 32, 32, 64, 64]
    for i in range(1, 7):
        expected[f"conv{i}.weight"] = (channels[i], channels[i - 1], 3, 3)
        expected[f"conv{i}.bias"] = (channels[i],)
    expected |= {"linear1.weight": (1024, 50), "linear1.bias": (50,)}
    expected |= {"linear2.weight": (50, 10), "linear2.bias": (10,)}
    assert shapes(DeepConvNet()) == expected
    assert list(shapes(DeepConvNet())) == list(expected)


def test_sizes_of_the_deep_network():
    """28 -> 14 -> 16 -> 8 -> 4: the fourth convolution pads by 2."""
    shape, sizes = (1, 28, 28), []
    for layer in DeepConvNet().body.layers:
        shape = layer.build(shape)
        if isinstance(layer, Conv2d | MaxPool2d):
            sizes.append(shape[1:])
    assert sizes == [(s, s) for s in (28, 28, 14, 14, 16, 8, 8, 8, 4)]


@pytest.mark.parametrize("model", [SimpleConvNet, DeepConvNet])
def test_every_convolution_and_hidden_layer_is_followed_by_relu(model):
    layers = [layer for layer in model().body.layers if not isinstance(layer, MaxPool2d)]
    for i, layer in enumerate(layers[:-1]):
        if isinstance(layer, Conv2d | Linear):
            assert isinstance(layers[i + 1], ReLU)
    assert isinstance(layers[-1], Linear)


@pytest.mark.parametrize("shape", [(1, 11, 11), (3, 8, 8), (1, 12, 17), (3, 15, 10), (1, 28, 28)])
@pytest.mark.parametrize("model", MODELS)
def test_other_inputs(model, shape):
    net, (x, labels) = model(shape, num_classes=7), batch(shape, num_classes=7)
    loss, _ = Classification(net).gradients(x, labels, MicroBatch())
    assert net.predict(x).shape == (8, 7)
    assert np.isfinite(loss)
    assert np.isfinite(net.parameters.grads).all()
    for slot in net.parameters.slots:
        assert np.abs(net.parameters.grads[slot.start : slot.stop]).max() > 0, slot.name


def test_simple_conv_net_on_a_size_that_the_book_gets_wrong():
    """11 x 11, kernel 3: 9 x 9 after the convolution, 4 x 4 after pooling."""
    assert shapes(SimpleConvNet((1, 11, 11), filters=3, kernel=3))["linear1.weight"][0] == 48


@pytest.mark.parametrize("model", MODELS)
def test_the_seed_decides_the_values(model):
    shape = (1, 8, 8)
    np.testing.assert_array_equal(
        model(shape, seed=5).parameters.values, model(shape, seed=5).parameters.values
    )
    assert not np.array_equal(
        model(shape, seed=5).parameters.values, model(shape, seed=6).parameters.values
    )


def test_widths_of_initial_values():
    for net in (TwoLayerNet(), SimpleConvNet()):
        for name, value in net.parameters.named().items():
            expected = 0 if name.endswith("bias") else 0.01
            assert value.std() == pytest.approx(expected, rel=0.1), name
    deep = DeepConvNet().parameters.named()
    assert deep["conv6.weight"].std() == pytest.approx(np.sqrt(2 / (64 * 9)), rel=0.02)
    assert deep["linear1.weight"].std() == pytest.approx(np.sqrt(2 / 1024), rel=0.02)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_two_layer_net_is_the_formula_of_the_book(activation):
    net, (x, _) = (
        TwoLayerNet((6,), 3, hidden_size=5, activation=activation, dtype=np.float64),
        batch((6,)),
    )
    rng = np.random.default_rng(1)
    net.parameters.values[...] = rng.standard_normal(net.parameters.values.size)
    net.parameters.refresh()
    w1, b1, w2, b2 = net.parameters.named().values()
    h = x @ w1 + b1
    h = 1 / (1 + np.exp(-h)) if activation == "sigmoid" else np.maximum(h, 0)
    np.testing.assert_allclose(net.predict(x), h @ w2 + b2, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", MODELS)
def test_the_loss_of_a_batch_falls(model):
    net, (x, labels) = model(), batch((1, 28, 28), n=20)
    optimizer = make_optimizer("adam", net.parameters.values.size)
    start, _ = Classification(net).measure(x, labels)
    for t in range(1, 31):
        Classification(net).gradients(x, labels, MicroBatch(step=t))
        optimizer.step(net.parameters.values, net.parameters.grads, 0.003, t)
        net.parameters.refresh()
    assert Classification(net).measure(x, labels)[0] < 0.8 * start


def test_dropout_can_be_left_out():
    net, (x, labels) = DeepConvNet((1, 8, 8), dropout=0), batch((1, 8, 8))
    loss, _ = Classification(net).gradients(x, labels, MicroBatch())
    assert loss == pytest.approx(Classification(net).measure(x, labels)[0] / 8, rel=1e-6)


def test_normalisation_behind_each_pooling():
    net = DeepConvNet(batchnorm=True)
    assert net.parameters.values.size == 123_552 + 2 * (16 + 32 + 64)
    kinds = [layer.kind for layer in net.body.layers]
    places = [i for i, kind in enumerate(kinds) if kind == "batchnorm"]
    assert [kinds[i - 1 : i + 2] for i in places] == [["pool", "batchnorm", "relu"]] * 3


def test_wide_stem_is_one_convolution_in_place_of_the_first_two():
    net = DeepConvNet(wide_stem=True, batchnorm=True)
    weights = [shape for name, shape in shapes(net).items() if name.endswith("weight")]
    convolutions = [(32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3)]
    assert weights == [(16, 1, 5, 5), *convolutions, (1024, 50), (50, 10)]
    assert net.parameters.values.size == 121_712
    kinds = [layer.kind for layer in net.body.layers]
    assert kinds[:5] == ["conv", "pool", "batchnorm", "relu", "conv"]


def test_width_multiplies_filters_and_hidden_units():
    found = shapes(DeepConvNet(width=1.5))
    assert found["conv1.weight"] == (24, 1, 3, 3)
    assert found["conv6.weight"] == (96, 96, 3, 3)
    assert found["linear1.weight"] == (96 * 4 * 4, 75)
    assert found["linear2.weight"] == (75, 10)
