"""Layers of a user's own, written without a thought for whose memory is whose: right or refused."""

import copy
import pickle

import numpy as np
import pytest
from layer_table import TRAIN, off_kinks

from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
    fold_batchnorm,
    quantize,
)
from distnet.nn.gradient_check import gradient_errors
from distnet.nn.initializers import constant
from distnet.nn.parameters import Parameter, Statistic
from distnet.training.files.model_file import load, save
from distnet.training.fit import fit

SHAPE = (2, 4, 4)


class Same(Layer):
    """Returns what it is given."""

    def forward(self, x, out=None, at=None):
        return x

    def backward(self, dy, out=None, need_dx=True):
        return dy


class Shifted(Same):
    """The natural way to write y = x + c."""

    def forward(self, x, out=None, at=None):
        return x + 0.25


class Flipped(Layer):
    """Returns views of what it is given."""

    def forward(self, x, out=None, at=None):
        return x[..., ::-1]

    def backward(self, dy, out=None, need_dx=True):
        return dy[..., ::-1]


class Keeps(Layer):
    """Needs for backward what it returned, and does not say so."""

    def forward(self, x, out=None, at=None):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy, out=None, need_dx=True):
        return dy * (1 - self.y**2)


class KeepsItsArray(Keeps):
    """The same, where it is asked to write."""

    def forward(self, x, out=None, at=None):
        self.y = np.tanh(x, out=self.output(x.shape, out))
        return self.y


class SaysSo(KeepsItsArray):
    needs_output = True


class Spread(Layer):
    """The mean of a sample, whose gradient is one number everywhere, and read-only."""

    def forward(self, x, out=None, at=None):
        self.shape = x.shape
        return np.broadcast_to(x.mean(axis=(1, 2, 3), keepdims=True), x.shape)

    def backward(self, dy, out=None, need_dx=True):
        mean = dy.sum(axis=(1, 2, 3), keepdims=True) / np.prod(self.shape[1:])
        return np.broadcast_to(mean, self.shape)


OWN = [Same, Shifted, Flipped, Keeps, KeepsItsArray, SaysSo, Spread]
CHAINS = {
    "between convolutions": lambda own: [
        Conv2d(2, 3, pad=1),
        Conv2d(2, 3, pad=1),
        own,
        Conv2d(2, 1),
    ],
    "before one that works in place": lambda own: [Conv2d(2, 1), own, BatchNorm(), Conv2d(2, 1)],
    "between two of them": lambda own: [Conv2d(2, 1), Tanh(), own, LeakyReLU(), Conv2d(2, 1)],
    "before dropout, at the end": lambda own: [Sigmoid(), own, Dropout(0.5)],
    "last": lambda own: [Conv2d(2, 1), Tanh(), own],
    "first": lambda own: [own, Tanh(), Linear(3)],
    "alone": lambda own: [own],
    "alone in a residual": lambda own: [Conv2d(2, 1), Residual([own]), Conv2d(2, 1)],
    "last in a residual": lambda own: [Residual([Conv2d(2, 1), Tanh(), own], [Conv2d(2, 1)])],
    "first in a residual": lambda own: [Conv2d(2, 1), Residual([own, Tanh()]), Conv2d(2, 1)],
    "in branches": lambda own: [Conv2d(2, 1), Branches([own], [Conv2d(2, 1)]), Tanh()],
}


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("chain", CHAINS)
def test_gradients_are_right_wherever_it_stands(chain, own):
    network = Network(CHAINS[chain](own()), SHAPE, dtype=np.float64)
    x = off_kinks((3, *SHAPE))
    before = x.copy()
    errors = dict(gradient_errors(network.body, x, TRAIN))
    assert max(errors.values()) < 1e-6, errors
    np.testing.assert_array_equal(x, before)


def test_what_it_is_given_back_stays_as_it_was():
    network = Network([Conv2d(2, 1), ReLU(), Same()], SHAPE)
    dy = np.ones((3, *SHAPE), np.float32)
    network.forward(np.ones((3, *SHAPE), np.float32), TRAIN)
    network.backward(dy)
    assert (dy == 1).all()


class WritesIntoInput(Same):
    def forward(self, x, out=None, at=None):
        x[x < 0] = 0
        return x


class WritesIntoGradient(Same):
    def backward(self, dy, out=None, need_dx=True):
        dy *= 2
        return dy


@pytest.mark.parametrize("own", [WritesIntoInput, WritesIntoGradient])
def test_writing_into_what_others_need_is_refused(own):
    network = Network([Sigmoid(), own(), Linear(2)], SHAPE)
    with pytest.raises(ValueError, match="read-only"):
        network.forward(np.ones((3, *SHAPE), np.float32), TRAIN)
        network.backward(np.ones((3, 2), np.float32), need_dx=True)


class InPlace(WritesIntoInput, WritesIntoGradient):
    in_place = True

    def forward(self, x, out=None, at=None):
        return np.multiply(x, 2, out=self.output(x.shape, out))

    def backward(self, dy, out=None, need_dx=True):
        return np.multiply(dy, 2, out=self.input_gradient(dy.shape, out))


def test_one_that_says_so_may_work_in_place():
    own = InPlace()
    network = Network([Conv2d(2, 3, pad=1), own, Conv2d(2, 1)], SHAPE, dtype=np.float64)
    errors = dict(gradient_errors(network.body, off_kinks((3, *SHAPE)), TRAIN))
    assert max(errors.values()) < 1e-6, errors
    assert "output" not in own.memory._kept(3).made


class Narrow(Same):
    def forward(self, x, out=None, at=None):
        return x[:, :1]


class NarrowGradient(Same):
    def backward(self, dy, out=None, need_dx=True):
        return dy.sum(axis=0, keepdims=True)


class Forgets(Same):
    def backward(self, dy, out=None, need_dx=True):
        dy.sum()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            Narrow,
            r"layer1: forward returned \(3, 1, 4, 4\), expected an array of shape \(3, 2, 4, 4\)",
        ),
        (NarrowGradient, r"layer1: backward returned \(1, 2, 4, 4\), expected .* \(3, 2, 4, 4\)"),
        (Forgets, r"layer1: backward returned NoneType, expected an array of shape \(3, 2, 4, 4\)"),
    ],
)
def test_what_it_returns_has_the_shape_that_was_said(own, message):
    network = Network([Conv2d(2, 1), own(), Linear(2)], SHAPE)
    with pytest.raises(ValueError, match=message):
        network.forward(np.ones((3, *SHAPE), np.float32), TRAIN)
        network.backward(np.ones((3, 2), np.float32))


class Adds(Layer):
    """Adds to its gradients, as other libraries have it."""

    def build(self, shape, dtype=np.float32):
        super().build(shape, dtype)
        self.bias = Parameter(shape, constant(0))
        return shape

    def parameters(self):
        yield "bias", self.bias

    def forward(self, x, out=None, at=None):
        return x + self.bias.value

    def backward(self, dy, out=None, need_dx=True):
        self.bias.grad += dy.sum(axis=0)
        return dy


def test_gradients_that_are_added_begin_at_zero():
    own = Adds()
    network = Network([Linear(3), own], (4,), dtype=np.float64)
    for _ in range(3):
        network.forward(np.ones((2, 4)), TRAIN)
        network.backward(np.ones((2, 3)))
        assert (own.bias.grad == 2).all()


class Assigns(Adds):
    """Puts new arrays in the place of those that it has, and forgets `super().__init__()`."""

    def __init__(self):
        self.mean = Statistic((3,), 0)

    def statistics(self):
        yield "mean", self.mean

    def forward(self, x, out=None, at=None):
        if at is not None:
            self.mean.batch = x.mean(axis=0) * at.share
            self.bias.value = self.bias.value + 1
        return x + self.bias.value - self.mean.value

    def update_statistics(self):
        self.mean.value = 0.5 * (self.mean.value + self.mean.batch)

    def backward(self, dy, out=None, need_dx=True):
        self.bias.grad = dy.sum(axis=0)
        return dy


def test_arrays_that_are_assigned_stay_where_they_are_trained_and_saved():
    own = Assigns()
    network = Network([own, Linear(2)], (3,), dtype=np.float64)
    network.forward(np.ones((2, 3)), TRAIN)
    network.backward(np.ones((2, 2)))
    parameters = network.parameters
    parameters.update_statistics(parameters.batch_statistics.copy())
    np.testing.assert_array_equal(parameters.values[:3], 1)
    np.testing.assert_array_equal(parameters.grads[:3], own.bias.grad)
    assert parameters.grads[:3].all()
    np.testing.assert_array_equal(parameters.statistics, TRAIN.share / 2)
    twin = copy.deepcopy(network)
    np.testing.assert_array_equal(twin.predict(np.eye(3)), network.predict(np.eye(3)))


class Shares(Adds):
    def __init__(self, other):
        self.other = other

    def build(self, shape, dtype=np.float32):
        super().build(shape, dtype)
        self.bias = self.other.bias
        return shape


def test_a_parameter_of_two_layers_is_refused():
    """It had two places in the vector: one was trained, and gradients were sent too early."""
    first = Adds()
    with pytest.raises(ValueError, match=r"layer2.bias: found the same Parameter as layer1.bias, "):
        Network([first, Shares(first)], (3,))


class NamesNone(Adds):
    def parameters(self):
        return iter(())


class TakesNoOut(Same):
    def forward(self, x, at=None):
        return x


class ReturnsNoShape(Same):
    def build(self, shape, dtype=np.float32):
        super().build(shape, dtype)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (NamesNone, r"Parameter.value: found none, .*, and to name it in parameters\(\)"),
        (TakesNoOut, r"TakesNoOut.forward: found .*\(self, x, at\), expected \(self, x, out, at\)"),
        (ReturnsNoShape, "layer1, whose input is .*: build returned None, expected the shape of"),
    ],
)
def test_what_is_left_out_is_said_in_a_line(own, message):
    with pytest.raises((AttributeError, ValueError), match=message):
        Network([own()], SHAPE).predict(np.zeros((1, *SHAPE), np.float32))


@pytest.mark.parametrize("name", ["forward", "backward", "as_input"])
def test_a_network_computes_what_its_layers_compute(name):
    kind = type("Own", (Network,), {name: lambda self, x, at=None: x})
    with pytest.raises(ValueError, match=f"Own: found a {name} of its own, .* as a layer of your"):
        kind([Linear(2)], (3,))


def test_nothing_is_to_be_returned_where_nobody_asks():
    network = Network([Forgets(), Linear(2)], SHAPE)
    network.forward(np.ones((3, *SHAPE), np.float32), TRAIN)
    assert network.backward(np.ones((3, 2), np.float32)) is None


class Block(Sequential):
    """A block of layers, made from a number."""

    def __init__(self, channels):
        super().__init__([Conv2d(channels, 3, pad=1), BatchNorm(), ReLU()])


class ShortCut(Residual):
    def __init__(self, channels):
        super().__init__([Conv2d(channels, 3, pad=1), BatchNorm()], [Conv2d(channels, 1)])


class Wide(Branches):
    def __init__(self, num_branches):
        super().__init__(*([Conv2d(2, 1), BatchNorm()] for _ in range(num_branches)))


class Tripled:
    """Computes three times what the next class does."""

    def forward(self, x, out=None, at=None):
        return super().forward(x, None, at) * 3

    def backward(self, dy, out=None, need_dx=True):
        return super().backward(dy * 3, None, need_dx)


class TripledBlock(Tripled, Block):
    kind = "tripled"


class TripledShort(Tripled, ShortCut):
    kind = "short"


class TripledNorm(Tripled, BatchNorm):
    pass


class TripledConv(Tripled, Conv2d):
    pass


class TripledPool(Tripled, MaxPool2d):
    pass


class Nothing(Tripled, Sequential):
    """No layers, and yet it does something."""

    def __init__(self):
        super().__init__([])


DERIVED = {
    "block": lambda: [Block(2)],
    "residual": lambda: [ShortCut(2)],
    "branches": lambda: [Wide(3)],
    "a block that computes": lambda: [TripledBlock(2)],
    "a residual that computes": lambda: [TripledShort(2)],
    "a norm behind a convolution": lambda: [Conv2d(2, 1), TripledNorm()],
    "a convolution in front of a norm": lambda: [TripledConv(2, 1), BatchNorm()],
    "a convolution in front of a pool": lambda: [TripledConv(4, 3, pad=1), MaxPool2d(2)],
    "a pool behind a convolution": lambda: [Conv2d(4, 3, pad=1), TripledPool(2)],
    "no layers": lambda: [Nothing(), Tanh()],
}


def derived(name, dtype=np.float64):
    network = Network([*DERIVED[name](), Linear(3)], SHAPE, dtype=dtype)
    network.parameters.statistics[...] = np.linspace(0.5, 1.5, network.parameters.statistics.size)
    return network


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_derived_from_a_layer_computes_what_it_says(name):
    network, x = derived(name), off_kinks((3, *SHAPE))
    expected = x
    for layer in network.body.layers:
        expected = layer.forward(expected).copy()
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-9)
    errors = dict(gradient_errors(network.body, x, TRAIN))
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_derived_from_a_layer_is_copied_saved_folded_and_quantized(name, tmp_path):
    network, x = derived(name), off_kinks((3, *SHAPE))
    expected = network.predict(x)
    save(network, tmp_path / "own.safetensors")
    copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
    for each in (*copies, load(tmp_path / "own.safetensors")):
        np.testing.assert_array_equal(each.predict(x), expected)
    np.testing.assert_allclose(fold_batchnorm(network).predict(x), expected, rtol=1e-9)
    error = np.abs(quantize(network, x).predict(x) - expected).max()
    assert error < 0.1 * np.abs(expected).max()


class HoldsLayers(Layer):
    """Keeps layers as attributes, alone and in a list, and names their arrays."""

    kind = "holds"

    def __init__(self, channels=2, ratio=0.5):
        self.convolution, self.norm = Conv2d(channels, 3, pad=1), BatchNorm()
        self.rest = [ReLU(), Dropout(ratio), Sequential([Dropout(ratio)])]
        self.chain = [self.convolution, self.norm, *self.rest]

    def compute_in(self, arithmetic):
        super().compute_in(arithmetic)
        for layer in self.chain:
            layer.compute_in(arithmetic)

    def build(self, shape, dtype=np.float32):
        super().build(shape, dtype)
        for layer in self.chain:
            layer.input_shape = shape
            shape = layer.output_shape = layer.build(shape, dtype)
        return shape

    def parameters(self):
        for number, layer in enumerate(self.chain):
            yield from ((f"{number}.{name}", array) for name, array in layer.parameters())

    def statistics(self):
        for number, layer in enumerate(self.chain):
            yield from ((f"{number}.{name}", array) for name, array in layer.statistics())

    def forward(self, x, out=None, at=None):
        for layer in self.chain:
            x = layer.forward(x, None, at)
        return x

    def backward(self, dy, out=None, need_dx=True):
        for layer in reversed(self.chain):
            dy = layer.backward(dy)
        return dy


def fitted(layers):
    rng = np.random.default_rng(0)
    images = rng.random((20, *SHAPE), np.float32), rng.integers(0, 3, 20)
    network = Network([*layers, Linear(3)], SHAPE)
    settings = dict(epochs=3, lr=0.1, batch_size=10, evaluate_on={"same": images})
    return fit(network, *images, **settings)


def test_layers_that_it_holds_are_trained_as_in_a_chain():
    """They forgot nothing when their weights changed, and averages did not move."""
    chain = [Conv2d(2, 3, pad=1), BatchNorm(), ReLU(), Dropout(0), Dropout(0)]
    assert fitted([HoldsLayers(ratio=0)]) == fitted(chain)


def test_layers_that_it_holds_draw_bits_of_their_own():
    """One network had the same masks at all of its places."""
    network = Network([HoldsLayers(), HoldsLayers(), Dropout(0.5)], SHAPE)
    network.forward(np.ones((3, *SHAPE), np.float32), TRAIN)
    *own, last = network.body.layers
    layers = [*(d for each in own for d in (each.rest[1], each.rest[2].layers[0])), last]
    masks = [layer.keeps((100,), TRAIN).tobytes() for layer in layers]
    assert len(set(masks)) == 5
    twin = copy.deepcopy(network).body.layers[1]
    assert twin.rest[1].keeps((100,), TRAIN).tobytes() == masks[2]


class HoldsMore(Sequential):
    """A block with layers beside those of its chain."""

    kind = "more"

    def __init__(self, ratio=0.5):
        super().__init__([Conv2d(2, 3, pad=1), Dropout(ratio)])
        self.more = Sequential([HoldsLayers(2, ratio)])

    def compute_in(self, arithmetic):
        super().compute_in(arithmetic)
        self.more.compute_in(arithmetic)

    def build(self, shape, dtype=np.float32):
        return self.more.build(super().build(shape, dtype), dtype)

    def parameters(self):
        yield from super().parameters()
        yield from ((f"more.{name}", array) for name, array in self.more.parameters())

    def statistics(self):
        return self.more.statistics()

    def forward(self, x, out=None, at=None):
        return self.more.forward(super().forward(x, None, at), None, at)

    def backward(self, dy, out=None, need_dx=True):
        return super().backward(self.more.backward(dy), None, need_dx)


def test_so_are_those_that_a_block_holds_beside_its_chain():
    chain = [Conv2d(2, 3, pad=1), HoldsLayers(ratio=0)]
    assert fitted([HoldsMore(0)]) == fitted(chain)
    block = HoldsMore()
    Network([block], SHAPE)
    inner = block.more.layers[0]
    drawing = [block.layers[1], inner.rest[1], inner.rest[2].layers[0]]
    assert len({layer.keeps((100,), TRAIN).tobytes() for layer in drawing}) == 3


class Refers(Same):
    """Knows a layer that has a place of its own."""

    def __init__(self, layer):
        self.layer = layer


def test_a_layer_that_two_hold_is_refused_and_one_that_is_elsewhere_is_left_alone():
    shared = BatchNorm()
    with pytest.raises(ValueError, match="inside of Refers: found the same BatchNorm as inside of"):
        Network([Refers(shared), Refers(shared)], SHAPE)
    norm = BatchNorm()
    assert fitted([norm, Refers(norm)]) == fitted([BatchNorm()])
    with pytest.raises(ValueError, match=r"inside of Refers: .* is part of another network"):
        Network([Refers(norm)], SHAPE)
