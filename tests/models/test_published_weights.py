"""Published states: torchvision's names, layouts and logits; both ways, and nothing else taken."""

from collections import OrderedDict

import numpy as np
import published_formulas
import pytest
from published_formulas import State

from distnet.base.options import own_options
from distnet.models import MODELS, DeepConvNet, ResNet, TwoLayerNet
from distnet.models.published import (
    IDLE,
    from_published,
    load_published,
    load_state,
    published_standardize,
    to_published,
    to_state,
)
from distnet.models.segmentation import FCN, SegNet
from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Embedding,
    LeakyReLU,
    Linear,
    MaxPool2d,
    Network,
    ReLU,
    Residual,
    Standardize,
)

SIDES = {"lenet5": 28, "alexnet": 224, "vgg11": 32, "vgg11_bn": 32}  # 64 for the others
FORMULAS = {
    "lenet5": published_formulas.lenet,
    "alexnet": published_formulas.alexnet,
    "vgg11": published_formulas.vgg11,
    "vgg11_bn": published_formulas.vgg11_bn,
    "googlenet": published_formulas.googlenet,
    "resnet18": published_formulas.resnet18,
    "resnet50": published_formulas.resnet50,
}


def shape_of(name):
    side = SIDES.get(name, 64)
    return (1 if name == "lenet5" else 3, side, side)


def network(name, shape=None, num_classes=10, **options):
    """The network with few channels and no values."""
    if "hidden_sizes" in own_options(MODELS[name]):
        options = {"hidden_sizes": (12, 9)} | options
    options = {"width": 0.0625, "dtype": np.float64} | options
    return MODELS[name](shape or shape_of(name), num_classes, seed=None, **options)


def filled(state, seed=1):
    """A state of the same names and shapes with random numbers that keep signals near 1."""
    rng = np.random.default_rng(seed)
    drawn = {}
    for name, array in state.items():
        if IDLE.search(name):
            drawn[name] = np.array(7, np.int64)
        elif array.ndim > 1:
            fan_in = np.prod(array.shape[1:])
            drawn[name] = rng.standard_normal(array.shape) * np.sqrt(2 / fan_in)
        else:
            centre = 1.0 if name.endswith(("var", "weight")) else 0.0
            drawn[name] = centre + rng.uniform(-0.3, 0.3, array.shape)
        drawn[name] = drawn[name].astype(array.dtype)
    return drawn


@pytest.mark.parametrize("name", FORMULAS)
def test_logits_are_those_of_the_formulas(name):
    """Every array of the state is used, and the network is found from names and shapes alone."""
    state = State(filled(to_published(network(name))))
    x = np.random.default_rng(2).standard_normal((2, *shape_of(name)))
    expected = FORMULAS[name](state, x)
    assert state.used == {key for key in state if not IDLE.search(key)}
    found = from_published(dict(state), image_size=shape_of(name)[1], dtype=np.float64)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found.predict(x), expected, rtol=0, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back(name, dtype):
    state = filled(to_published(network(name, dtype=dtype)))
    back = to_published(from_published(state, image_size=shape_of(name)[1], dtype=dtype))
    assert list(back) == list(state)
    for key, array in back.items():
        assert array.dtype == state[key].dtype, key
        if not IDLE.search(key):
            np.testing.assert_array_equal(array, state[key], key)


def places(state, part, ndim):
    names = [n for n, a in state.items() if n.startswith(part) and a.ndim == ndim]
    return [int(name.split(".")[1]) for name in names]


@pytest.mark.parametrize(
    ("name", "features", "classifier"),
    [
        ("alexnet", [0, 3, 6, 8, 10], [1, 4, 6]),
        ("vgg11", [0, 3, 6, 8, 11, 13, 16, 18], [0, 3, 6]),
        ("vgg13", [0, 2, 5, 7, 10, 12, 15, 17, 20, 22], [0, 3, 6]),
        ("vgg16", [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], [0, 3, 6]),
        ("vgg19", [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34], [0, 3, 6]),
        ("vgg16_bn", [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40], [0, 3, 6]),
    ],
)
def test_places_in_torchvision(name, features, classifier):
    state = to_published(network(name))
    assert places(state, "features", 4) == features
    assert places(state, "classifier", 2) == classifier


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("resnet18", 122, ["bn1.weight", "layer2.0.downsample.1.running_var", "fc.bias"]),
        ("resnet34", 218, ["layer3.5.bn2.num_batches_tracked", "layer4.2.conv2.weight"]),
        ("resnet50", 320, ["layer1.0.downsample.0.weight", "layer3.5.conv3.weight"]),
        ("resnet101", 626, ["layer3.22.bn3.bias"]),
        ("resnet152", 932, ["layer2.7.bn1.running_mean", "layer3.35.conv1.weight"]),
        ("googlenet", 344, ["conv1.bn.weight", "inception4e.branch3.1.conv.weight", "fc.weight"]),
    ],
)
def test_number_of_arrays_in_torchvision(name, count, some):
    state = to_published(network(name))
    assert len(state) == count and state.keys() >= set(some)


@pytest.mark.parametrize("name", [name for name in MODELS if "resnet" in name or "vgg" in name])
def test_the_network_is_found_from_its_state(name):
    """In torchvision's sizes but for the width: options, number of classes, channels, pixels."""
    cifar = name in ("resnet20", "resnet56", "resnet110")
    side = 32 if cifar or name.startswith("vgg") else 224
    original = network(name, (3, side, side), 7)
    found = from_published(to_published(original), dtype=np.float64)
    assert found.input_shape == (3, side, side) and found.output_shape == (7,)
    assert shapes(found) == shapes(original)


def shapes(net):
    return {slot.name: slot.shape for slot in net.parameters.slots}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lenet5", (1, 28, 28)),
        ("lenet5", (3, 32, 32)),
        ("alexnet", (1, 28, 28)),
        ("alexnet", (3, 32, 32)),
        ("alexnet", (3, 224, 224)),
        ("googlenet", (3, 32, 32)),
        ("vgg13_bn", (1, 64, 64)),
    ],
)
def test_pixels_and_channels_are_found(name, shape):
    assert from_published(to_published(network(name, shape))).input_shape == shape


@pytest.mark.parametrize("width", [0.125, 0.3, 1.25])
def test_other_options_are_found(width):
    options = {"blocks": (1, 2), "bottleneck": True, "batchnorm": False, "width": width}
    original = ResNet((1, 28, 28), 5, seed=None, **options)
    found = from_published(to_published(original), image_size=28)
    assert shapes(found) == shapes(original)


def test_what_training_alone_has_is_passed_over():
    state = filled(to_published(network("googlenet")))
    more = state | {"aux1.fc1.weight": np.zeros((2, 2)), "aux2.conv.bn.bias": np.zeros(3)}
    less = {key: array for key, array in state.items() if not key.endswith("tracked")}
    x = np.random.default_rng(0).random((1, 3, 64, 64))
    first, second = (
        from_published(s, image_size=64, dtype=np.float64).predict(x) for s in (more, less)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("stray", ["aux2.fc1.weight", "conv9.num_batches_tracked"])
@pytest.mark.parametrize("name", ["resnet18", "lenet5"])
def test_what_no_network_of_that_kind_has_is_not_passed_over(name, stray):
    state = filled(to_published(network(name)))
    with pytest.raises(ValueError, match=f"found '{stray}', expected no such array"):
        from_published(state | {stray: np.zeros(())})


def test_weights_for_imagenet_expect_standardized_pixels():
    narrow = {"width": 1 / 64}
    for name, expected in (("resnet18", "imagenet"), ("googlenet", "half"), ("vgg11", "imagenet")):
        shape = shape_of(name)
        assert published_standardize(to_published(network(name, shape, 1000, **narrow))) == expected
        assert published_standardize(to_published(network(name, shape, 999, **narrow))) == "none"
        grey = network(name, (1, *shape[1:]), 1000, **narrow)
        assert published_standardize(to_published(grey)) == "none"
    state = to_published(network("resnet18", None, 1000, **narrow))
    net = from_published(state, standardize="imagenet")
    assert isinstance(net.body.layers[0], Standardize)
    assert list(to_published(net)) == list(state)


def without(state, name):
    return {key: array for key, array in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "layer1.0.bn2.running_var"), "bn2.running_var: found nothing"),
        (lambda s: s | {"layer1.0.conv9.bias": np.zeros(4)}, "found 'layer1.0.conv9.bias', exp"),
        (lambda s: s | {"bn1.bias": np.zeros(5)}, r"bn1.bias: found float64 \(5,\), expected flo"),
        (lambda s: s | {"bn1.bias": np.zeros(4, int)}, r"bn1.bias: found int64 \(4,\), expected"),
        (lambda s: {}, "found 'no array' ..., expected the state_dict of a model of torchvision"),
        (lambda s: {"a.weight": np.zeros(3)}, "found 'a.weight' ..., expected the state_dict"),
        (lambda s: without(s, "fc.weight"), "found 'conv1.weight, bn1.weight, .* expected the st"),
        (lambda s: s | {"conv1.weight": np.zeros(3)}, "found 'conv1.weight, bn1.weight"),
    ],
)
def test_other_states_are_refused(change, message):
    state = to_published(network("resnet18"))
    with pytest.raises(ValueError, match=message) as caught:
        from_published(change(state), image_size=64)
    assert "\n" not in str(caught.value)


def test_networks_of_other_layers_are_refused():
    class Scale(Linear):
        """A layer that torchvision's families do not have."""

    net = Network([Linear(3), Scale(2)], (4,))
    with pytest.raises(ValueError, match="found a network with layers of no model of torchvision"):
        to_published(net)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DeepConvNet(),  # named as a VGG would be
        lambda: TwoLayerNet(),
        lambda: FCN((3, 16, 16), 4),
        lambda: SegNet((3, 16, 16), 4),
        lambda: Network([Conv2d(4, 3, pad=1), MaxPool2d(2), LeakyReLU(), Linear(3)], (1, 8, 8)),
        lambda: Network([Conv2d(4, 3), AvgPool2d(2), ReLU(), Linear(3)], (1, 8, 8)),
    ],
)
def test_networks_that_would_not_be_found_again_are_refused(make):
    with pytest.raises(ValueError, match="found a network with layers of no model of torchvision"):
        to_published(make())


def test_a_refused_state_changes_nothing():
    net = network("resnet18")
    state = filled(to_published(net))
    load_published(net, state)
    before = net.parameters.values.copy()
    with pytest.raises(ValueError, match=r"fc\.bias: found nothing"):
        load_published(net, without(filled(state, seed=2), "fc.bias"))
    np.testing.assert_array_equal(net.parameters.values, before)


# Beside torchvision itself.


@pytest.fixture
def torch():
    torchvision = pytest.importorskip(
        "torchvision", reason="compares with torchvision, the extra `torch`", exc_type=ImportError
    )
    assert torchvision
    return pytest.importorskip("torch")


def theirs(torch, name):
    """torchvision's network in double precision, ready to predict; VGG with few channels."""
    from torchvision import models

    if not name.startswith("vgg"):
        other = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
        return getattr(models, name)(num_classes=10, **other)
    letter = {"11": "A", "13": "B", "16": "D", "19": "E"}[name[3:5]]
    sizes = [v if v == "M" else v // 16 for v in models.vgg.cfgs[letter]]
    model = models.VGG(models.vgg.make_layers(sizes, name.endswith("bn")), init_weights=False)
    model.avgpool = torch.nn.Identity()  # of 1 x 1 pixels, where it would repeat them
    model.classifier[0] = torch.nn.Linear(32, 12)
    model.classifier[3], model.classifier[6] = torch.nn.Linear(12, 9), torch.nn.Linear(9, 10)
    return model


@pytest.mark.parametrize(
    "name", [name for name in MODELS if name.startswith(("alexnet", "vgg", "goog", "resnet"))]
)
def test_logits_are_those_of_torchvision(torch, name):
    if name in ("resnet20", "resnet56", "resnet110"):
        pytest.skip("torchvision has no networks for CIFAR")
    model = theirs(torch, name).eval()
    state = filled({key: value.numpy() for key, value in model.state_dict().items()})
    side = {"alexnet": 224}.get(name, 32 if name.startswith("vgg") else 64)
    x = np.random.default_rng(3).standard_normal((2, 3, side, side))
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-4)):
        cast = {key: torch.from_numpy(a.astype(dtype)) for key, a in state.items()}
        model = model.to(getattr(torch, dtype.__name__))
        model.load_state_dict(cast)
        with torch.no_grad():
            expected = model(torch.from_numpy(x.astype(dtype))).numpy()
        net = from_published({k: a.numpy() for k, a in cast.items()}, image_size=side, dtype=dtype)
        error = np.abs(net.predict(x.astype(dtype)) - expected).max()
        assert error < tolerance * np.abs(expected).max()
        back = to_published(net)
        assert list(back) == list(cast)
        model.load_state_dict({key: torch.from_numpy(array) for key, array in back.items()})


def of_no_family(seed, dtype=np.float64):
    layers = [Conv2d(6, 3, pad=1), BatchNorm(), ReLU(), MaxPool2d(2), Linear(5)]
    return Network(layers, (2, 8, 8), seed=seed, dtype=dtype)


@pytest.mark.parametrize(
    "make",
    [
        of_no_family,
        lambda seed: DeepConvNet((1, 12, 12), 10, seed=seed),
        lambda seed: TwoLayerNet((1, 4, 4), 3, seed=seed),
        lambda seed: FCN((3, 32, 32), 4, seed=seed),
        lambda seed: ResNet((1, 28, 28), 10, seed=seed, width=0.0625),
    ],
)
def test_the_state_of_any_network_of_layers_that_pytorch_has(make):
    network, other = make(1), make(2)
    network.parameters.statistics += np.arange(network.parameters.statistics.size)
    load_state(other, to_state(network))
    for name, array in network.parameters.all_named().items():
        np.testing.assert_array_equal(other.parameters.all_named()[name], array, name)


def test_a_state_of_no_family_has_the_names_that_layers_have_here():
    state = to_state(of_no_family(1))
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    rest = [f"batchnorm1.{name}" for name in norm] + ["linear1.weight", "linear1.bias"]
    assert list(state) == ["conv1.weight", "conv1.bias", *rest]
    assert state["linear1.weight"].shape == (5, 96)
    with pytest.raises(ValueError, match=r"conv1.bias: found nothing, expected floats \(6,\)$"):
        load_state(of_no_family(1), {n: a for n, a in state.items() if n != "conv1.bias"})
    with pytest.raises(ValueError, match="found Embedding, of which no state_dict is written"):
        to_state(Network([Embedding(5, 3)], (4,), seed=0))


def test_pytorch_loads_such_a_state():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    network, nn = of_no_family(1), torch.nn
    network.parameters.statistics += 0.5
    module = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(2, 6, 3, padding=1),
            batchnorm1=nn.BatchNorm2d(6),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            linear1=nn.Linear(96, 5),
        )
    ).double()
    module.load_state_dict({k: torch.from_numpy(v) for k, v in to_state(network).items()})
    x = np.random.default_rng(0).standard_normal((3, 2, 8, 8))
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.predict(x), expected, rtol=1e-12)


@pytest.mark.parametrize("last", [Linear(3), ReLU()])
def test_a_state_that_does_not_fit_is_one_line(last):
    other = Network([Conv2d(4, 3), Residual([Conv2d(4, 3, pad=1)]), last], (2, 6, 6), seed=0)
    state = to_state(of_no_family(1))
    with pytest.raises(ValueError, match=r"found 'batchnorm1\.weight', expected no such array"):
        load_state(other, state)
    lacking = {name: array for name, array in state.items() if name != "linear1.weight"}
    with pytest.raises(ValueError, match=r"^linear1\.weight: found nothing, expected floats"):
        load_state(of_no_family(2), lacking)
