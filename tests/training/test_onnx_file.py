"""onnxruntime computes from an ONNX file what the network computes, layer by layer and whole."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from layer_table import CASES, Case, all_layers

import distnet
from distnet.convert import main
from distnet.models import MODELS
from distnet.nn import (
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Conv2d,
    LeakyReLU,
    Linear,
    MaxPool2d,
    MaxUnpool2d,
    Network,
    Quantize,
    ReLU,
    Residual,
    Scale,
    Sequential,
    Sign,
)
from distnet.training.files.onnx_file import LAYERS, OPSET, model_of, write_onnx

NOT_THERE = {"CaptionDecoder", "Embedding", "GramMatrix", "LSTM", "PositionEmbedding"}


def logits(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (found,) = session.run(["logits"], {"images": images})
    return found


def filled(network: Network) -> Network:
    """With values that are not those of the start."""
    rng = np.random.default_rng(1)
    for array in network.parameters.named().values():
        array[...] = rng.uniform(-1, 1, array.shape)
    for array in network.parameters.named_statistics().values():
        array[...] = rng.uniform(0.5, 1.5, array.shape)
    network.parameters.refresh()
    return network


def is_there(case: Case) -> bool:
    layers = case.make().leaves()
    return not NOT_THERE & {type(layer).__name__ for layer in layers}


@pytest.mark.parametrize("case", list(filter(is_there, CASES)), ids=str)
def test_every_layer(case):
    network = filled(Network([case.make()], case.shape))
    images = np.random.default_rng(2).normal(size=(5, *case.shape)).astype(np.float32)
    expected = network.predict(images)
    found = logits(model_of(network, {}, onnx), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, abs(expected).max()))


def test_every_layer_is_there_or_is_known_not_to_be():
    names = {layer.__name__ for layer in LAYERS} | NOT_THERE
    assert {layer.__name__ for layer in all_layers()} <= names | {"Sequential"}


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("deep_convnet", (1, 28, 28), {}),
        ("resnet20", (3, 32, 32), {}),
        ("googlenet", (3, 64, 64), {"width": 0.125}),
        ("alexnet", (3, 64, 64), {"width": 0.125, "hidden_sizes": (32,), "lrn": True}),
        ("vgg11_bn", (3, 32, 32), {"width": 0.125, "hidden_sizes": (32,)}),
    ],
)
def test_whole_networks_on_any_number_of_images(name, shape, options):
    network = MODELS[name](shape, 10, **options)
    model = model_of(network, {}, onnx)
    assert model.opset_import[0].version == OPSET >= 18
    for number in (1, 7):
        images = np.random.default_rng(number).random((number, *shape)).astype(np.float32)
        found = logits(model, images)
        np.testing.assert_allclose(found, network.predict(images), rtol=0, atol=1e-5)


def test_the_command_writes_a_file_with_its_classes(tmp_path, capsys):
    network = filled(Network([Conv2d(3, 3), Linear(2)], (1, 5, 5)))
    distnet.save(network, tmp_path / "model.safetensors", classes=["cat", "dog"])
    out = tmp_path / "model.onnx"
    assert main([str(tmp_path / "model.safetensors"), str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: the model of ")
    model = onnx.load(out)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == ["cat", "dog"]
    assert about["pixels"] == "0 to 1"
    images = np.random.default_rng(0).random((3, 1, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(logits(model, images), network.predict(images), rtol=0, atol=1e-5)


def test_another_arithmetic_than_the_file_has_is_told(tmp_path, capsys):
    network = Network([Conv2d(3, 3), Linear(2)], (1, 5, 5), arithmetic="bfloat16")
    distnet.save(network, tmp_path / "model.safetensors")
    assert main([str(tmp_path / "model.safetensors"), str(tmp_path / "model.onnx")]) == 0
    assert ", in float32 in place of its bfloat16 arithmetic, " in capsys.readouterr().out


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("low", [0.0, -1.0], ids=["unsigned", "signed"])
def test_whole_numbers_have_the_same_bits(low):
    """Products of bytes, also of numbers further out than those that were calibrated on."""
    rng = np.random.default_rng(0)
    images = rng.uniform(low, 1, (40, 4, 9, 8)).astype(np.float32)
    layers = [
        Conv2d(6, 3, stride=2, pad=1, groups=2),
        Conv2d(5, (2, 3), dilation=(2, 1), bias=False),
        Linear(30, bias=False),
        Linear(3),
    ]
    network = distnet.quantize(filled(Network(layers, (4, 9, 8))), images)
    model = model_of(network, {}, onnx)
    assert operators(model)["ConvInteger"] == operators(model)["MatMulInteger"] == 2
    for factor in (1, 20):
        found = logits(model, factor * images)
        np.testing.assert_array_equal(found, network.predict(factor * images))


def test_sums_of_bytes_do_not_saturate():
    """Where signed products would: all numbers are at their largest."""
    network = Network([Quantize(1.0), Linear(8, bias=False), Scale()], (64,))
    network.parameters.named()["linear1.weight"][...] = np.where(np.arange(8) % 2, 127, -128)
    network.parameters.named()["scale1.factor"][...] = 1
    network.parameters.refresh()
    model = model_of(network, {}, onnx)
    assert operators(model)["MatMulInteger"] == 1
    found = logits(model, np.full((50, 64), 300, np.float32))
    assert (found == np.where(np.arange(8) % 2, 127, -128) * 64 * 255).all()


@pytest.mark.parametrize("bits", [{"weight_bits": 9}, {"activation_bits": 9}], ids=str)
def test_whole_numbers_of_more_bits_are_computed_in_floats(bits):
    images = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    network = filled(Network([Conv2d(4, 3), Linear(3)], (1, 8, 8)))
    network = distnet.quantize(network, images, **bits)
    model = model_of(network, {}, onnx)
    assert not operators(model)["ConvInteger"] + operators(model)["MatMulInteger"]
    expected = network.predict(images)
    found = logits(model, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_a_whole_network_of_bytes():
    digits = distnet.load_dataset("mnist").test.inputs[:200] / np.float32(255)
    network = filled(MODELS["deep_convnet"]((1, 28, 28), 10))
    small = distnet.quantize(network, digits[:50])
    model = model_of(small, {}, onnx)
    assert operators(model)["ConvInteger"] == 6
    np.testing.assert_array_equal(logits(model, digits), small.predict(digits))
    sizes = [len(each.SerializeToString()) for each in (model, model_of(network, {}, onnx))]
    assert sizes[0] < sizes[1] / 3


def test_weights_of_one_bit_take_a_byte():
    layers = [BinaryConv2d(8, 3), BatchNorm(), Sign(), BinaryLinear(200)]
    network = filled(Network(layers, (1, 8, 8)))
    network.parameters.named()["conv1.weight"][0, 0, 0] = 0  # whose sign is +1
    network.parameters.refresh()
    images = np.random.default_rng(0).integers(-1, 2, (9, 1, 8, 8)).astype(np.float32)
    model = model_of(network, {}, onnx)
    expected = network.predict(images)
    np.testing.assert_allclose(logits(model, images), expected, rtol=0, atol=1e-5 * 300)
    assert len(model.SerializeToString()) < network.parameters.size * 1.2 + 3000


@pytest.mark.parametrize("pool", [{}, {"stride": 1}, {"stride": 3, "pad": 1}], ids=str)
def test_values_go_back_to_the_first_of_equal_maxima(pool):
    """After a ReLU there are many; where windows overlap, a pixel gets the sum."""
    kernel = 3 if pool else 2
    layers = [ReLU(), MaxPool2d(kernel, **pool), LeakyReLU(), MaxUnpool2d()]
    network = Network(layers, (3, 8, 8))
    model = model_of(network, {}, onnx)
    images = np.random.default_rng(0).integers(-3, 3, (5, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(logits(model, images), network.predict(images))


def test_segnet_on_any_number_of_images():
    """Of two numbers that are nearly equal another one may be the larger, elsewhere: a few pixels.

    The maximum goes back to another place then.
    """
    network = filled(distnet.SegNet((3, 32, 48), 4))
    model = model_of(network, {}, onnx)
    for number in (1, 3):
        images = np.random.default_rng(number).random((number, 3, 32, 48)).astype(np.float32)
        expected = network.predict(images)
        found = logits(model, images)
        assert np.mean(abs(found - expected) <= 1e-5 * abs(expected).max()) > 0.95


class Odd(Linear):
    """A layer of a user's own."""


@pytest.mark.parametrize("layers", [[Odd(3)], [Residual([Sequential([Odd(4)])])]])
def test_a_layer_without_a_form_is_named(layers, tmp_path):
    with pytest.raises(ValueError, match=r"found a layer Odd \((.*\.)?linear1\), expected some"):
        write_onnx(tmp_path / "x.onnx", Network(layers, (4,)), {})
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_a_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match="needs the onnx package, found none; install it"):
        write_onnx(tmp_path / "x.onnx", Network([Linear(3)], (4,)), {})


def test_options_for_other_files_are_refused(tmp_path, capsys):
    distnet.save(Network([Linear(3)], (4,)), tmp_path / "model.safetensors")
    argv = [str(tmp_path / "model.safetensors"), str(tmp_path / "x.onnx")]
    assert main([*argv, "--storage", "float16"]) == 2
    assert "found --published or --storage" in capsys.readouterr().err
    assert not Path(argv[1]).exists()
