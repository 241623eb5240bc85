"""The published networks: their sizes, small versions of each definition, and a step of each."""

import json
import subprocess
import sys

import numpy as np
import pytest

from distnet.base.options import own_options
from distnet.models import MODELS, VGG, AlexNet, GoogLeNet, LeNet5, ResNet
from distnet.models.published import to_published
from distnet.nn import Linear, LocalResponseNorm, MicroBatch, Network, Residual, Resize, layout
from distnet.nn.description import describe, rebuild
from distnet.objectives import Classification

PUBLISHED = {
    "lenet5": 61_706,
    "alexnet": 61_100_840,
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
    "googlenet": 6_624_904,
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
NARROW = {"width": 0.0625}
GREY, COLOUR = (1, 28, 28), (3, 32, 32)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_as_published(name, monkeypatch):
    monkeypatch.setattr(Network, "_initialize", lambda network, seed: None)  # a second for VGG
    network = MODELS[name]()
    assert network.parameters.values.size == PUBLISHED[name]
    assert network.output_shape == ((10,) if name == "lenet5" else (1000,))
    assert network.parameters.dtype == np.float32


@pytest.mark.parametrize("depth", [20, 56, 110])
def test_residual_networks_for_cifar(depth):
    """6 n + 2 layers with weights, beside the shortcuts; 0.27 million parameters for 20."""
    network = MODELS[f"resnet{depth}"](COLOUR, 10)
    names = [slot.name for slot in network.parameters.slots if slot.name.endswith("weight")]
    assert len([name for name in names if "path2" not in name]) == depth
    if depth == 20:
        assert network.parameters.values.size == 272_474


def narrow(name, shape, num_classes=10, **options):
    """The network with few channels."""
    options = NARROW | options
    if "hidden_sizes" in own_options(MODELS[name]):
        options = {"hidden_sizes": (12, 9)} | options
    return MODELS[name](shape, num_classes, **options)


def gradients(network, n=3, seed=1):
    """A training step's loss on random samples; the gradients lie in the network's parameters."""
    rng = np.random.default_rng(seed)
    x = layout.empty((n, *network.input_shape), network.dtype)
    x[...] = rng.uniform(0, 1, x.shape)
    labels = rng.integers(0, network.output_shape[0], n)
    return Classification(network).gradients(x, labels, MicroBatch())[0]


SMALL = ["lenet5", "alexnet", "googlenet", "resnet18", "resnet50"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *((name, GREY) for name in SMALL),
        *((name, COLOUR) for name in [*SMALL, "vgg11", "vgg13_bn"]),
        *((name, (3, 64, 72)) for name in ["alexnet", "googlenet", "resnet34", "vgg16"]),
    ],
)
def test_a_step_on_small_images(name, shape):
    network = narrow(name, shape, num_classes=7)
    assert network.output_shape == (7,)
    assert np.isfinite(gradients(network))
    assert np.isfinite(network.parameters.grads).all()
    touched = [s.name for s in network.parameters.slots if s.of(network.parameters.grads).any()]
    assert len(touched) >= 0.9 * len(network.parameters.slots)  # few channels: a ReLU may be dead


def sizes(network, kind):
    """The rows and columns of what the layers of that kind put out, in order."""
    shape, found = network.input_shape, []
    for layer in network.body.layers:
        shape = layer.build(shape)
        if layer.kind == kind:
            found.append(shape[1:])
    return found


@pytest.mark.parametrize(
    ("name", "shape", "kind", "expected"),
    [
        ("lenet5", GREY, "avgpool", [14, 5]),
        ("lenet5", COLOUR, "avgpool", [14, 5]),
        ("alexnet", (3, 224, 224), "pool", [27, 13, 6]),
        ("alexnet", GREY, "pool", [14, 7, 3]),
        ("alexnet", (3, 64, 64), "pool", [7, 3, 1]),
        ("vgg11", (3, 224, 224), "pool", [112, 56, 28, 14, 7]),
        ("vgg11", COLOUR, "pool", [16, 8, 4, 2, 1]),
        ("googlenet", (3, 224, 224), "branches", [28] * 2 + [14] * 5 + [7] * 2),
        ("googlenet", GREY, "branches", [28] * 2 + [14] * 5 + [7] * 2),
        ("resnet18", (3, 224, 224), "residual", [56, 56, 28, 28, 14, 14, 7, 7]),
        ("resnet18", GREY, "residual", [28, 28, 14, 14, 7, 7, 4, 4]),
        ("resnet20", COLOUR, "residual", [32] * 3 + [16] * 3 + [8] * 3),
    ],
)
def test_sizes_of_what_the_layers_put_out(name, shape, kind, expected):
    assert sizes(narrow(name, shape), kind) == [(size, size) for size in expected]


@pytest.mark.parametrize("name", ["vgg11", "alexnet", "googlenet", "resnet18"])
def test_images_of_either_stem_give_the_same_layers_behind_it(name):
    """Small images change the stem, and no more parameters than those that see its size."""
    small, large = (
        {slot.name: slot.shape for slot in narrow(name, (3, side, side)).parameters.slots}
        for side in (32, 224)
    )
    changed = {n for n in small.keys() & large.keys() if small[n] != large[n]}
    assert len(changed) <= 9 and small.keys() <= large.keys()


def test_width_and_depth():
    names = {slot.name: slot.shape for slot in narrow("vgg11", COLOUR, width=0.5).parameters.slots}
    assert names["conv1.weight"] == (32, 3, 3, 3) and names["conv8.weight"] == (256, 256, 3, 3)
    shallow = VGG((1, 14, 14), 10, convolutions=(2, 2, 2), width=0.25, hidden_sizes=(64,))
    assert [s.shape[0] for s in shallow.parameters.slots if "conv" in s.name][::4] == [16, 32, 64]
    google = GoogLeNet((1, 14, 14), 10, modules=(2, 2), width=0.125)
    assert len(sizes(google, "branches")) == 4
    residual = ResNet((1, 7, 7), 10, blocks=(20,), width=0.125, batchnorm=False)
    assert len(sizes(residual, "residual")) == 20


def test_the_plain_network_has_the_layers_of_the_residual_one():
    """42 layers with weights; the residual ones start as the identity, whatever their depth."""
    options = {"blocks": (20,), "width": 0.125, "batchnorm": False}
    residual = ResNet((1, 7, 7), 10, **options)
    plain = ResNet((1, 7, 7), 10, shortcuts=False, **options)
    assert plain.parameters.values.size == residual.parameters.values.size
    assert not sizes(plain, "residual")
    weights = [s for s in plain.parameters.slots if s.name.endswith("weight")]
    assert len(weights) == 42
    blocks = [layer for layer in residual.body.layers if isinstance(layer, Residual)]
    for block in blocks:
        first, second = block.paths[0].layers[0], block.paths[0].layers[-1]
        assert first.weight.value.any() and not second.weight.value.any()
    assert all(s.of(plain.parameters.values).any() for s in weights)


def test_152_layers():
    """One forward and backward pass: finite, and the gradient reaches the first layer."""
    network = narrow("resnet152", (1, 8, 8))
    assert np.isfinite(gradients(network, n=8))
    named = [slot.of(network.parameters.grads) for slot in network.parameters.slots]
    first, last = np.linalg.norm(named[0]), np.linalg.norm(named[-2])
    assert 1e-3 < first / last < 1e3


def test_alexnet_with_local_response_normalisation():
    network = AlexNet(GREY, 10, width=0.25, hidden_sizes=(100,), lrn=True)
    norms = [layer for layer in network.body.layers if isinstance(layer, LocalResponseNorm)]
    assert [(n.size, n.alpha, n.beta, n.k) for n in norms] == [(5, 5e-4, 0.75, 2.0)] * 2
    assert np.isfinite(gradients(network))


@pytest.mark.parametrize(
    ("activation", "gain"), [("tanh", 1), ("sigmoid", 4), ("relu", np.sqrt(2))]
)
def test_weights_of_lenet_start_as_the_activation_wants(activation, gain):
    weights = LeNet5(activation=activation, width=4).parameters.named()
    assert weights["conv2.weight"].std() == pytest.approx(gain / np.sqrt(24 * 25), rel=0.02)
    assert weights["linear1.weight"].std() == pytest.approx(gain / np.sqrt(64 * 25), rel=0.02)


def test_dropout_and_depth_are_options_of_the_registered_networks():
    assert own_options(MODELS["vgg19_bn"])["batchnorm"].default is True
    assert own_options(MODELS["resnet152"])["blocks"].default == (3, 8, 36, 3)
    assert own_options(MODELS["googlenet"])["dropout"].default == 0.2


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg11_bn", "googlenet", "resnet18"])
def test_images_are_scaled_inside_of_the_network(name):
    """The layers are those for the new size; the network takes the images as they are."""
    side = {"lenet5": 32}.get(name, 64)
    inside = narrow(name, (1, 14, 21), image_size=side, dtype=np.float64)
    outside = narrow(name, (1, side, side), dtype=np.float64)
    x = np.random.default_rng(1).random((2, 1, 14, 21))
    scaled = Network([Resize(side)], (1, 14, 21), dtype=np.float64).predict(x)
    np.testing.assert_allclose(inside.predict(x), outside.predict(scaled), rtol=1e-12, atol=1e-13)
    assert list(to_published(inside)) == list(to_published(outside))


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "vgg11_bn", "googlenet", "resnet50"])
def test_a_file_can_hold_the_network(name):
    options = {} if name == "lenet5" else {"standardize": "imagenet"}
    network = narrow(name, (3, 32, 32), image_size=48, **options)
    again = rebuild(json.loads(json.dumps(describe(network))))
    again.parameters.load(network.parameters.named() | network.parameters.named_statistics())
    x = np.random.default_rng(1).integers(0, 256, (2, 3, 32, 32), np.uint8)
    np.testing.assert_array_equal(again.predict(x), network.predict(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VGG(GREY, 10), "VGG: found images of 28 x 28 pixels, expected at least 32 a side"),
        (lambda: VGG(GREY, 10), "scale them with --image-size 32"),
        (lambda: VGG(COLOUR, convolutions=(1,) * 6), "VGG: found 6 stages, expected at most 5"),
        (lambda: VGG((784,)), r"VGG: found input shape \(784,\), expected images"),
        (lambda: GoogLeNet(GREY, modules=(3,)), r"GoogLeNet: found modules \(3,\), expected at"),
        (lambda: GoogLeNet(GREY, modules=(1,) * 4), r"expected at most \(2, 5, 2\)"),
        (lambda: LeNet5(GREY, width=-1), "network: found width -1, expected a number > 0"),
        (lambda: LeNet5(GREY, activation="rel"), "unknown activation 'rel', .* mean relu?"),
        (
            lambda: ResNet(COLOUR, standardize="imagnet"),
            "unknown standardization 'imagnet', .*none",
        ),
        (lambda: ResNet((10,)), r"ResNet: found input shape \(10,\), expected images"),
        (
            lambda: ResNet(GREY, 10, standardize="imagenet", **NARROW),
            r"Standardize: found input shape \(1, 28, 28\), expected images of 3 channels",
        ),
    ],
)
def test_what_cannot_be_built_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "googlenet", "resnet18"])
def test_standardized_pixels(name):
    """`standardize` is the same as giving the network pixels that were standardized before."""
    inside = narrow(name, COLOUR, standardize="imagenet", dtype=np.float64)
    outside = narrow(name, COLOUR, dtype=np.float64)
    x = np.random.default_rng(1).integers(0, 256, (2, *COLOUR), np.uint8)
    mean = np.array([0.485, 0.456, 0.406])[:, None, None]
    std = np.array([0.229, 0.224, 0.225])[:, None, None]
    expected = outside.predict((x / 255 - mean) / std)
    np.testing.assert_allclose(inside.predict(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [("alexnet", {"hidden_sizes": (99,)}), ("vgg11", {"hidden_sizes": (99,)})]
    + [(name, {"width": 1.0}) for name in ("googlenet", "resnet18")],
)
def test_the_last_weights_start_small(name, options):
    last = narrow(name, COLOUR, num_classes=200, **options).body.layers[-1]
    assert isinstance(last, Linear)
    assert last.weight.value.std() == pytest.approx(0.01, rel=0.02)


STEP = """
import sys
import numpy as np
from distnet.models import MODELS
from distnet.nn import MicroBatch
from distnet.objectives import Classification
network = MODELS[sys.argv[1]]()
x = network.as_input(np.full((1, 3, 224, 224), 100, np.uint8))
loss, _ = Classification(network).gradients(x, np.array([3]), MicroBatch())
assert np.isfinite(loss) and np.isfinite(network.parameters.grads).all()
# Not ru_maxrss, which a process has from the one that started it.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.parametrize(
    ("name", "most_mib"), [("alexnet", 1500), ("googlenet", 700), ("resnet50", 1000)]
)
def test_a_step_at_224_pixels_within_stated_memory(name, most_mib):
    """Peak memory of a process that builds the network and trains on one picture."""
    ended = subprocess.run([sys.executable, "-c", STEP, name], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < most_mib
