"""A network that is printed: its layers, their outputs, parameters and multiply-adds."""

import pytest

from distnet.models import DeepConvNet
from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    Branches,
    CaptionDecoder,
    Conv2d,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Sequential,
)

TABLE = """
Network of samples 2 x 6 x 4
layer                                                  output     parameters  multiply-adds
conv1                  Conv2d(3, (3, 5), pad=2)        3 x 8 x 4          93          2,880
batchnorm1             BatchNorm()                     3 x 8 x 4           6
pool1                  MaxPool2d(2)                    3 x 4 x 2
residual1.path1.conv1  Conv2d(3, 1, bias=False)        3 x 4 x 2           9             72
residual1.path1.relu1  ReLU()                          3 x 4 x 2
branches1.path1.conv1  Conv2d(2, 3, pad=1, init=0.01)  2 x 4 x 2          56            432
linear1                Linear(10)                      10                410            400
total                                                  10                574          3,784
"""


def test_the_table_of_a_network():
    branches = Branches([Conv2d(2, 3, pad=1, init=0.01)], [])
    layers = [Conv2d(3, (3, 5), pad=2), BatchNorm(), MaxPool2d(2)]
    layers += [Residual([Conv2d(3, 1, bias=False), ReLU()]), branches, Linear(10)]
    net = Network(layers, (2, 6, 4))
    assert str(net) == TABLE.strip()
    assert repr(net) == "<Network 2 x 6 x 4 -> 10, 574 parameters>"
    assert net.parameters.values.size == 574


def test_what_a_decoder_runs_for_each_word_is_counted_for_each():
    convolution, decoder = Conv2d(6, 1, bias=False), CaptionDecoder(5, 4, hidden=7, embedding=3)
    net = Network([Residual([convolution], [Conv2d(6, 1)]), decoder], (2, 2, 3))
    of_convolutions = 2 * (2 * 6) * (2 * 3)
    of_a_word = (3 + 6 + 7) * 4 * 7 + 7 * 6 + 2 * (2 * 3) * 6 + (7 + 6) * 5  # LSTM ... logits
    assert decoder.multiply_adds == 4 * of_a_word + 6 * 5
    assert net.multiply_adds == of_convolutions + decoder.multiply_adds
    rows = [line.split() for line in str(net).splitlines()[2:]]
    costs = [int(row[-1].replace(",", "")) for row in rows if row[0] != "captions1.embedding"]
    assert sum(costs[:-1]) == costs[-1] == net.multiply_adds
    assert rows[-2][:2] == ["captions1", "CaptionDecoder(5,"]


def test_every_layer_of_a_network_has_a_row():
    net = DeepConvNet()
    lines = str(net).splitlines()
    assert lines[0] == "DeepConvNet of samples 1 x 28 x 28"
    assert len(lines) == 3 + len(net.body.layers)
    assert lines[-1].split()[-2:] == [f"{net.parameters.values.size:,}", "8,772,340"]


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (Conv2d(4, 3, stride=2, bias=False), "Conv2d(4, 3, stride=2, bias=False)"),
        (
            MaxPool2d((3, 2), stride=1, ceil_mode=True),
            "MaxPool2d((3, 2), stride=1, ceil_mode=True)",
        ),
        (AvgPool2d(2, count_include_pad=False), "AvgPool2d(2, count_include_pad=False)"),
        (Linear(3, init="xavier"), "Linear(3, init='xavier')"),
        (BatchNorm(momentum=0.5, unbiased=False), "BatchNorm(momentum=0.5, unbiased=False)"),
        (LocalResponseNorm(3, k=2), "LocalResponseNorm(3, k=2)"),
        (Dropout(0.25), "Dropout(0.25)"),
        (LeakyReLU(), "LeakyReLU()"),
        (Sequential([ReLU(), Linear(2)]), "Sequential([ReLU(), Linear(2)])"),
        (Residual(iter([ReLU()])), "Residual([ReLU()], [])"),
    ],
)
def test_a_layer_reads_as_it_was_made(layer, text):
    assert repr(layer) == text
