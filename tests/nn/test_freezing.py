"""What is frozen is a constant: for training, in copies, in files, and in what is printed."""

import copy
import json
import pickle

import numpy as np
import pytest
from layer_table import TRAIN, images

from distnet.nn import BatchNorm, Conv2d, Linear, Network, ReLU, Residual
from distnet.nn.description import describe, rebuild
from distnet.nn.joining import joined
from distnet.training.files.model_file import load, save

SHAPE = (2, 6, 6)


def network(seed=0, dtype=np.float64):
    block = Residual([Conv2d(3, 3, pad=1, bias=False), BatchNorm()])
    layers = [Conv2d(3, 3, pad=1), BatchNorm(), ReLU(), block, Linear(4), ReLU(), Linear(5)]
    net = Network(layers, SHAPE, seed=seed, dtype=dtype)
    rng = np.random.default_rng(seed)
    net.parameters.values[...] += rng.uniform(-0.1, 0.1, net.parameters.values.shape)
    net.parameters.statistics[...] = rng.uniform(0.5, 2, net.parameters.statistics.shape)
    return net


def step(net):
    """What a pass gives, by name: outputs, the gradients of all that is trained, contributions."""
    parameters = net.parameters
    y = net.forward(images((4, *SHAPE), net.dtype), TRAIN).copy()
    net.backward(images(y.shape, net.dtype, seed=1))
    grads = {slot.name: slot.of(parameters.grads).copy() for slot in parameters.slots}
    return {"y": y} | grads | {"batch": parameters.batch_statistics.copy()}


NAMES = {
    ("linear1",): {"linear1.weight", "linear1.bias"},
    ("linear1.bias", "linear2.weight"): {"linear1.bias", "linear2.weight"},
    ("residual1",): {
        f"residual1.path1.{x}"
        for x in ("conv1.weight", *map("batchnorm1.{}".format, ("gamma", "beta")))
    },
    ("conv",): {"conv1.weight", "conv1.bias", "residual1.path1.conv1.weight"},
    ("residual1.path1.batchnorm1",): {f"residual1.path1.batchnorm1.{x}" for x in ("gamma", "beta")},
    (): set(),
}


@pytest.mark.parametrize(("names", "frozen"), NAMES.items(), ids=str)
def test_names_of_layers_arrays_and_kinds(names, frozen):
    net = network()
    before, sha = (
        {n: a.copy() for n, a in net.parameters.all_named().items()},
        net.parameters.sha256(),
    )
    net.freeze(*names)
    parameters = net.parameters
    assert {slot.name for slot in parameters.constant_slots} == frozen
    assert {slot.name for slot in parameters.slots} == set(parameters.named()) - frozen
    assert list(parameters.all_named()) == list(before)  # in forward order, as files have them
    for name, array in parameters.all_named().items():
        np.testing.assert_array_equal(array, before[name])
    assert parameters.sha256() == sha
    size = parameters.values.size
    assert (parameters.grads.size, parameters.decays.size) == (size, size)
    assert size + parameters.constants.size == parameters.size == network().parameters.values.size


def test_the_last_choice_counts():
    net = network()
    expected = step(net)
    net.freeze("conv", "batchnorm")
    net.freeze("linear")
    assert {slot.name for slot in net.parameters.constant_slots} == {
        f"linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    }
    net.freeze()
    assert net.frozen == ()
    found = step(net)
    assert list(found) == list(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def test_gradients_of_the_rest_are_the_same():
    net = network()
    expected = step(net)
    for names in (["linear1"], ["conv1"], ["residual1.path1.conv1", "linear2.bias"]):
        net.freeze(*names)
        found = step(net)
        assert len(found) < len(expected)
        for name, value in found.items():
            np.testing.assert_array_equal(value, expected[name])


def test_frozen_normalisation_uses_its_running_statistics():
    """As another network has it that is told to evaluate, up to the layer that is trained."""
    net, x = network(), images((4, *SHAPE))
    evaluated = net.forward(x).copy()
    trained = net.forward(x, TRAIN).copy()
    net.freeze("batchnorm")
    assert net.parameters.batch_statistics.size == 0
    np.testing.assert_array_equal(net.forward(x, TRAIN), evaluated)
    assert np.abs(trained - evaluated).max() > 0.1
    before = net.parameters.statistics.copy()
    net.parameters.update_statistics(np.zeros(0))
    np.testing.assert_array_equal(net.parameters.statistics, before)


def test_one_of_two_normalisations_moves():
    net = network()
    net.freeze("conv1", "batchnorm1")
    frozen = {name: array.copy() for name, array in net.parameters.named_statistics().items()}
    net.forward(images((4, *SHAPE)), TRAIN)
    net.parameters.update_statistics(net.parameters.batch_statistics.copy())
    for name, array in net.parameters.named_statistics().items():
        assert np.array_equal(array, frozen[name]) == name.startswith("batchnorm1")


def test_gradients_with_frozen_normalisation_are_central_differences():
    net, x, dy = network(), images((4, *SHAPE)), images((4, 5), seed=1)
    net.freeze("batchnorm", "linear2")
    values, grads = net.parameters.values, net.parameters.grads
    net.forward(x, TRAIN)
    net.backward(dy)
    found, h = grads.copy(), 1e-5
    for i in range(0, values.size, 7):
        sums = []
        for there in (values[i] + h, values[i] - h):
            kept, values[i] = values[i], there
            net.parameters.refresh()
            sums.append(np.vdot(net.forward(x, TRAIN), dy))
            values[i] = kept
        assert found[i] == pytest.approx((sums[0] - sums[1]) / (2 * h), abs=1e-6)


def test_training_does_not_run_backward_through_what_lies_in_front():
    net = network()
    net.freeze("conv", "batchnorm")
    for layer in net.body.layers[:4]:
        layer.backward = None  # would be an error
    step(net)
    net.freeze("linear1")
    with pytest.raises(TypeError):
        step(net)
    other = network()
    other.freeze("conv1", "batchnorm1")
    offsets: list[int] = []
    other.forward(images((4, *SHAPE)), TRAIN)
    other.backward(images((4, 5)), ready=offsets.append)
    assert offsets == sorted(offsets, reverse=True)
    assert offsets[-1] == 0
    dx = other.backward(images((4, 5)), need_dx=True)
    assert dx is not None and dx.shape == (4, *SHAPE)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_keep_what_is_frozen(copied):
    net = network()
    net.freeze("conv1", "batchnorm")
    expected, other = step(net), copied(net)
    assert other.frozen == ("conv1", "batchnorm")
    for name, value in step(other).items():
        np.testing.assert_array_equal(value, expected[name])
    other.parameters.constants += 1
    other.parameters.refresh()
    assert not np.array_equal(step(other)["y"], expected["y"])
    np.testing.assert_array_equal(step(net)["y"], expected["y"])


def test_files_keep_what_is_frozen(tmp_path):
    net = network(dtype=np.float32)
    net.freeze("residual1")
    save(net, tmp_path / "model")
    other = load(tmp_path / "model")
    assert other.frozen == ("residual1",)
    assert other.parameters.sha256() == net.parameters.sha256()
    for name, value in step(other).items():
        np.testing.assert_array_equal(value, step(net)[name])
    assert "frozen" not in describe(network())


def test_a_file_with_a_name_that_nothing_has_is_refused():
    description = json.loads(json.dumps(describe(network()))) | {"frozen": ["conv7"]}
    with pytest.raises(ValueError, match="found 'conv7', expected a layer"):
        rebuild(description)


def test_joined_networks_are_frozen_before():
    """As for features that are compared, or one of two that train against each other."""
    a, b = network(seed=1), network(seed=2)
    a.freeze("conv", "batchnorm")
    expected = [step(net) for net in (a, b)]
    whole = joined(a=a, b=b)
    assert whole.size == 2 * network().parameters.size
    assert whole.constants.size == a.parameters.constants.size > 0
    for net, results in zip((a, b), expected, strict=True):
        for name, value in step(net).items():
            np.testing.assert_array_equal(value, results[name])
    assert np.shares_memory(whole.constants, a.parameters.constants)
    with pytest.raises(ValueError, match="found a network that was joined"):
        b.freeze("conv")


def test_the_table_says_what_is_frozen():
    net = network()
    net.freeze("residual1", "linear1.bias")
    lines = {line.split()[0]: line for line in str(net).splitlines()}
    assert "BatchNorm(), frozen " in lines["residual1.path1.batchnorm1"]
    assert "frozen" not in lines["conv1"]
    assert "Linear(4), 4 frozen " in lines["linear1"]
    assert " 91 frozen " in lines["total"]


@pytest.mark.parametrize("name", ["conv2", "relu1", "path1x", "", "residual1.path1.conv", "Conv1"])
def test_a_name_that_nothing_has_is_refused(name):
    net = network()
    with pytest.raises(ValueError, match=r"expected a layer or a kind .*: conv1, batchnorm1, res"):
        net.freeze("conv1", name)
    assert net.frozen == ()
