"""`distnet convert` between model files and the state dicts of torchvision, and what follows."""

import json

import numpy as np
import pytest

import distnet
from distnet.__main__ import main
from distnet.data.formats.states import read_state, write_state
from distnet.models import MODELS
from distnet.models.published import IDLE, to_published
from distnet.nn import Standardize

SIDE = 64


def network(num_classes=4, dtype=np.float32, **options):
    """A narrow ResNet-18 with running statistics of its own."""
    options = {"width": 1 / 16} | options
    net = MODELS["resnet18"]((3, SIDE, SIDE), num_classes, dtype=dtype, **options)
    statistics = net.parameters.statistics
    statistics[...] = np.float32(statistics + np.linspace(0, 0.3, statistics.size))
    return net


def pictures(n=2):
    return np.random.default_rng(3).integers(0, 256, (n, 3, SIDE, SIDE), np.uint8)


def said(capsys, *argv):
    code = main([str(argument) for argument in argv])
    shown = capsys.readouterr()
    return code, shown.out if code == 0 else shown.err


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_there_and_back(tmp_path, capsys, suffix, dtype):
    net = network(dtype=dtype)
    theirs, ours, back = tmp_path / f"a{suffix}", tmp_path / "b.safetensors", tmp_path / "c.pth"
    write_state(theirs, to_published(net))
    size = f"{net.parameters.values.size:,} parameters\n"
    argv = ["convert", theirs, ours, "--image-size", SIDE]
    assert said(capsys, *argv) == (0, f"{ours}: the network of {theirs}, {size}")
    found = distnet.load(ours)
    assert found.dtype == dtype and found.classes == ("0", "1", "2", "3")
    np.testing.assert_array_equal(found.predict(pictures()), net.predict(pictures()))
    if suffix == ".safetensors":
        back = tmp_path / "c.safetensors"
        assert said(capsys, "convert", ours, back, "--published")[0] == 0
    else:
        assert said(capsys, "convert", ours, back)[0] == 0
    state, again = read_state(theirs), read_state(back)
    assert again.keys() == state.keys()
    assert all(np.array_equal(again[name], state[name]) for name in state)


def test_weights_for_imagenet_classify_a_picture(tmp_path, capsys):
    """Published weights of 1000 classes: standardized pixels, the middle of the picture, names."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
    net = network(1000, standardize="imagenet")
    write_state(tmp_path / "resnet.pth", to_published(net))
    names = {str(k): [f"n{k:08}", f"thing {k}"] for k in range(1000)}
    (tmp_path / "names.json").write_text(json.dumps(names))
    ours, cat = tmp_path / "resnet.safetensors", tmp_path / "cat.png"
    argv = ["--classes", tmp_path / "names.json", "--image-size", SIDE]
    assert said(capsys, "convert", tmp_path / "resnet.pth", ours, *argv)[0] == 0
    loaded = distnet.load(ours)
    assert isinstance(loaded.body.layers[0], Standardize)

    pixels = np.random.default_rng(5).integers(0, 256, (SIDE, 90, 3), np.uint8)
    image.fromarray(pixels).save(cat)
    code, text = said(capsys, "predict", ours, cat, "--json")
    (found,) = json.loads(text)
    scaled = image.fromarray(pixels).resize((73 * 90 // SIDE, 73), image.Resampling.BILINEAR)
    left, top = round((scaled.width - SIDE) / 2), round((73 - SIDE) / 2)
    middle = np.asarray(scaled)[top : top + SIDE, left : left + SIDE].transpose(2, 0, 1)
    (expected,) = distnet.softmax(net.predict(middle[None]))
    assert code == 0 and found["class"] == f"thing {expected.argmax()}"
    np.testing.assert_allclose(list(found["probabilities"].values()), expected, rtol=1e-4)


def test_classes_of_one_name_are_told_apart(tmp_path, capsys):
    """As two of ImageNet's are; else the answer in JSON would have one of them alone."""
    write_state(tmp_path / "a.pth", to_published(network()))
    (tmp_path / "names.txt").write_text("crane\nowl\nhen\ncrane\n")
    argv = ["--classes", tmp_path / "names.txt", "--image-size", SIDE]
    code, line = said(capsys, "convert", tmp_path / "a.pth", tmp_path / "b.safetensors", *argv)
    assert code == 0 and "with their numbers: classes crane, " in line
    np.save(tmp_path / "image.npy", np.zeros((3, SIDE, SIDE), np.uint8))
    told = said(capsys, "predict", tmp_path / "b.safetensors", tmp_path / "image.npy", "--json")[1]
    probabilities = json.loads(told)[0]["probabilities"]
    assert list(probabilities) == ["crane (0)", "owl", "hen", "crane (3)"]
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_what_published_weights_expect_can_be_said_otherwise(tmp_path, capsys):
    write_state(tmp_path / "a.pth", to_published(network(1000)))
    target = tmp_path / "b.safetensors"
    for choice, count in (("none", 0), ("half", 1), ("auto", 1)):
        argv = ["--image-size", SIDE, "--standardize", choice, "--overwrite"]
        assert said(capsys, "convert", tmp_path / "a.pth", target, *argv)[0] == 0
        layers = distnet.load(target).body.layers
        assert sum(isinstance(layer, Standardize) for layer in layers) == count


def test_a_state_of_half_precision_is_read(tmp_path, capsys):
    state = to_published(network())
    half = {n: a if IDLE.search(n) else a.astype(np.float16) for n, a in state.items()}
    write_state(tmp_path / "a.safetensors", half)
    target = tmp_path / "b.safetensors"
    assert said(capsys, "convert", tmp_path / "a.safetensors", target)[0] == 0
    named = distnet.load(target).parameters.named()
    assert {array.dtype for array in named.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(named["conv1.weight"], half["conv1.weight"])


def test_what_a_state_says_nothing_of_is_told(tmp_path, capsys):
    network = distnet.ResNet(
        (3, 32, 32), 3, blocks=(1,), width=0.0625, seed=0, standardize="imagenet", image_size=16
    )
    distnet.save(network, tmp_path / "a.safetensors", classes=("x", "y", "z"))
    code, line = said(capsys, "convert", tmp_path / "a.safetensors", tmp_path / "b.pth")
    assert code == 0
    assert ", without its Resize(16), without its Standardize(" in line


def test_a_network_of_other_layers_has_no_state(tmp_path, capsys):
    class OfNoFamily(distnet.Linear):
        """Of no family of torchvision's."""

    distnet.save(distnet.Network([OfNoFamily(3)], (2,)), tmp_path / "a.safetensors")
    code, line = said(capsys, "convert", tmp_path / "a.safetensors", tmp_path / "b.pth")
    assert code == 2 and "found OfNoFamily, of which no state_dict is written, expected" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["own.safetensors", "b.bin"], "b.bin: found no name of a file of arrays, expected"),
        (
            ["own.safetensors", "b.pth", "--image-size", "64"],
            "found no state_dict, --image-size, --stand",
        ),
        (
            ["own.safetensors", "b.pth", "--activation", "relu"],
            "found no pickle, --activation is for a",
        ),
        (
            ["state.pth", "b.safetensors", "--activation", "relu"],
            "found no pickle, --activation is for a",
        ),
        (["other.safetensors", "b.safetensors"], "found 'x' ..., expected the state_dict of"),
        (["missing.pth", "b.safetensors"], "missing.pth: found no file, expected a state dict"),
        (
            ["state.pth", "b.safetensors", "--classes", "names"],
            "found 3 names, expected 4, the classes",
        ),
        (
            ["state.pth", "b.safetensors", "--classes", "nobody"],
            "nobody: found no file, expected names of classes",
        ),
        (["state.pth", "b.safetensors", "--standardize", "half"], ""),
        (
            ["lenet.pth", "b.safetensors", "--standardize", "half"],
            "lenet.pth: found standardize 'half' for lenet5, expected none",
        ),
    ],
)
def test_what_cannot_be_converted_is_one_line(tmp_path, capsys, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    distnet.save(network(), tmp_path / "own.safetensors")
    write_state(tmp_path / "state.pth", to_published(network()))
    write_state(tmp_path / "other.safetensors", {"x": np.zeros(3)})
    write_state(tmp_path / "lenet.pth", to_published(MODELS["lenet5"]((1, 28, 28), 10)))
    (tmp_path / "names").write_text("a\nb\nc\n")
    code, line = said(capsys, "convert", *argv)
    if message:
        assert code == 2 and line.startswith("distnet: error: ") and line.count("\n") == 1
        assert message in line
        assert not (tmp_path / argv[1]).exists()
    else:
        assert code == 0
