"""fold_batchnorm: the same predictions without the layers that are folded."""

import numpy as np
import pytest
from layer_table import images

from distnet.nn import (
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
    fold_batchnorm,
)

SHAPE = (3, 8, 8)


def block(filters: int) -> list[Layer]:
    return [Conv2d(filters, 3, pad=1, bias=False), BatchNorm(eps=1e-3), ReLU()]


def all_kinds() -> list[Layer]:
    """Eight of the nine BatchNorms follow a layer of weights."""
    return [
        BatchNorm(),
        *block(4),
        Conv2d(4, 3, pad=1),
        BatchNorm(),
        MaxPool2d(2),
        Residual([*block(6)[:2], Sequential(block(4))], [Conv2d(4, 1), BatchNorm()]),
        Branches(block(2), [MaxPool2d(3, stride=1, pad=1), Conv2d(3, 1), BatchNorm()], []),
        Linear(7, bias=False),
        BatchNorm(),
        ReLU(),
        Dropout(0.5),
        Linear(5),
    ]


def trained(layers, dtype):
    """A network whose parameters and statistics are not those of the start."""
    net, rng = Network(layers, SHAPE, dtype=dtype), np.random.default_rng(0)
    net.parameters.values += rng.normal(0, 0.2, net.parameters.values.size)
    net.parameters.statistics += rng.uniform(0, 2, net.parameters.statistics.size)
    net.parameters.refresh()
    return net


def count(net, kind):
    return sum(isinstance(layer, kind) for layer in net.body.leaves())


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_predictions_stay_and_normalizations_go(dtype, tolerance):
    net, x = trained(all_kinds(), dtype), images((6, *SHAPE), dtype)
    before = net.parameters.values.copy()
    expected = net.predict(x)
    folded = fold_batchnorm(net)
    assert (count(net, BatchNorm), count(folded, BatchNorm)) == (9, 1)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(folded.predict(x), expected, atol=tolerance * scale)
    np.testing.assert_array_equal(net.parameters.values, before)
    assert not np.shares_memory(folded.parameters.values, net.parameters.values)
    np.testing.assert_array_equal(net.predict(x), expected)


def test_a_network_without_normalization_is_copied():
    net, x = trained([Conv2d(4, 3), ReLU(), Linear(5)], np.float32), images((2, *SHAPE), np.float32)
    net.classes = tuple("abcde")
    folded = fold_batchnorm(net)
    np.testing.assert_array_equal(folded.predict(x), net.predict(x))
    assert folded.classes == net.classes


def test_the_formula_on_one_weight():
    """gamma (w x + b - mean) / sqrt(var + eps) + beta with numbers that can be done by hand."""
    net = Network([Linear(1), BatchNorm(eps=1)], (1,), dtype=np.float64)
    net.parameters.load(
        {
            "linear1.weight": [[5.0]],
            "linear1.bias": [4.0],
            "batchnorm1.gamma": [6.0],
            "batchnorm1.beta": [10.0],
            "batchnorm1.running_mean": [1.0],
            "batchnorm1.running_var": [3.0],
        }
    )
    folded = fold_batchnorm(net).parameters.named()
    assert {name: value.tolist() for name, value in folded.items()} == {
        "linear1.weight": [[15.0]],
        "linear1.bias": [19.0],
    }
