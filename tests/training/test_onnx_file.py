"""onnxruntime computes from an ONNX file what the network computes, layer by layer and whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from layer_table import CASES, Case, all_layers

import distnet
from distnet.convert import main
from distnet.models import MODELS
from distnet.nn import Conv2d, Linear, Network, Residual, Sequential
from distnet.training.onnx_file import LAYERS, OPSET, model_of, write_onnx

NOT_THERE = {"BinaryConv2d", "BinaryLinear", "CaptionDecoder", "Embedding", "LSTM", "MaxUnpool2d"}
NOT_THERE |= {"GramMatrix", "PositionEmbedding", "Sign"}


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


def test_a_network_of_whole_numbers_computes_the_same():
    images = np.random.default_rng(0).random((40, 1, 8, 8)).astype(np.float32)
    network = distnet.quantize(filled(Network([Conv2d(4, 3), Linear(3)], (1, 8, 8))), images)
    found = logits(model_of(network, {}, onnx), images)
    expected = network.predict(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * abs(expected).max())


class Odd(Linear):
    """A layer of a user's own."""


@pytest.mark.parametrize("layers", [[Odd(3)], [Residual([Sequential([Odd(4)])])]])
def test_a_layer_without_a_form_is_named(layers, tmp_path):
    with pytest.raises(ValueError, match="found a layer Odd, expected some of Sequential, "):
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
