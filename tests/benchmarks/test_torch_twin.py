"""What distnet is timed against computes the same: networks and their twins in PyTorch."""

import numpy as np
import pytest

from distnet.benchmarks.networks import CASES
from distnet.benchmarks.torch_twin import pools_before_relu, torch_twin
from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Tanh,
)

HOLDERS = Conv2d, Linear, BatchNorm


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="the twins are PyTorch's, the extra `bench`")


def every_kind():
    """A network with each kind of layer that has a twin, and with its unusual arguments."""
    return Network(
        [
            Conv2d(8, (3, 5), stride=(2, 1), pad=(1, 2), dilation=(1, 1), groups=2, bias=False),
            BatchNorm(momentum=0.8, eps=1e-3),
            ReLU(),
            LocalResponseNorm(3, alpha=0.1, beta=0.5, k=2.0),
            MaxPool2d(3, stride=2, pad=1, ceil_mode=True),
            Branches([Conv2d(4, 1), ReLU()], [AvgPool2d(3, stride=1, pad=1), Conv2d(6, 3, pad=1)]),
            Residual([Conv2d(10, 3, pad=1)]),
            Residual([Conv2d(12, 1, stride=2)], [Conv2d(12, 1, stride=2), BatchNorm()]),
            Dropout(0.5),
            Flatten(),
            Linear(9, bias=False),
            BatchNorm(),
            Sigmoid(),
            Linear(4),
        ],
        (4, 17, 19),
    )


def with_equal_values(torch, network, pools_first):
    """The twin, with the parameters of `network`."""
    twin = torch_twin(network.body, pools_first=pools_first)
    kinds = torch.nn.Conv2d, torch.nn.Linear, torch.nn.BatchNorm1d, torch.nn.BatchNorm2d
    ours = [layer for layer in network.body.leaves() if isinstance(layer, HOLDERS)]
    theirs = [module for module in twin.modules() if isinstance(module, kinds)]
    for layer, module in zip(ours, theirs, strict=True):
        weight, bias = (
            (layer.gamma, layer.beta)
            if isinstance(layer, BatchNorm)
            else (layer.weight, layer.bias)
        )
        value = weight.value.T if isinstance(layer, Linear) else weight.value
        with torch.no_grad():
            module.weight.copy_(torch.tensor(np.ascontiguousarray(value)))
            if module.bias is not None:
                module.bias.copy_(torch.tensor(bias.value))
    return twin


def logits_differ_by(torch, network, num_samples=3, pools_first=False):
    """The relative difference of the logits in evaluation, of random samples."""
    x = np.random.default_rng(1).random((num_samples, *network.input_shape), np.float32)
    twin = with_equal_values(torch, network, pools_first).eval()
    with torch.no_grad():
        theirs = twin(torch.tensor(x)).numpy()
    ours = network.predict(x)
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_every_kind_of_layer(torch):
    assert logits_differ_by(torch, every_kind()) < 1e-5


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].batch_size == 100])
def test_networks_of_the_benchmarks(torch, name):
    network = CASES[name].network()
    assert network.input_shape == CASES[name].input_shape
    assert logits_differ_by(torch, network) < 1e-4
    assert logits_differ_by(torch, network, pools_first=True) < 1e-4


def test_relu_comes_before_max_pooling_as_networks_are_written_in_pytorch(torch):
    def names(layers, **settings):
        network = Network(layers, (1, 6, 6))
        modules = torch_twin(network.body, **settings).modules()
        assert pools_before_relu(network.body) == (names_of(layers) == ["MaxPool2d", "ReLU"])
        kinds = torch.nn.ReLU | torch.nn.MaxPool2d
        return [type(module).__name__ for module in modules if isinstance(module, kinds)]

    def names_of(layers):
        flat = [inner for layer in layers for inner in getattr(layer, "layers", [layer])]
        return [type(layer).__name__ for layer in flat if isinstance(layer, MaxPool2d | ReLU)]

    assert names([MaxPool2d(2), ReLU()]) == ["ReLU", "MaxPool2d"]
    assert names([MaxPool2d(2), ReLU()], pools_first=True) == ["MaxPool2d", "ReLU"]
    assert names([Sequential([MaxPool2d(2), ReLU()])]) == ["ReLU", "MaxPool2d"]
    assert names([ReLU(), MaxPool2d(2)], pools_first=True) == ["ReLU", "MaxPool2d"]


def test_a_layer_without_a_twin_is_named(torch):
    with pytest.raises(ValueError, match="Tanh: found no layer of PyTorch"):
        torch_twin(Network([Linear(3), Tanh(), Linear(2)], (5,)).body)
