"""Weights as others publish them: the `state_dict` of torchvision's models, read and written.

A state has the arrays of a network by torchvision's names and in its layouts: linear weights are
`(out, in)` there and `(in, out)` here, everything else is alike. How the layers are called there is
told by each family's function of names, from which both directions follow. LeNet-5, which
torchvision does not have, has the names of PyTorch's tutorials, and in the state of any other
network layers are called as here. Called by `convert`.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arrays import Array, Shape
from distnet.models.alexnet import AlexNet
from distnet.models.googlenet import GoogLeNet
from distnet.models.lenet import LeNet5
from distnet.models.resnet import ResNet
from distnet.models.vgg import CHANNELS, VGG
from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    Branches,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Layer,
    Linear,
    MaxPool2d,
    Network,
    Residual,
    Resize,
    Standardize,
)

State = Mapping[str, Array]
Named = Iterator[tuple[str, Layer]]

# torchvision's names of what a layer holds, and ours.
ARRAYS: dict[type[Layer], dict[str, str]] = {
    Conv2d: {"weight": "weight", "bias": "bias"},
    ConvTranspose2d: {"weight": "weight", "bias": "bias"},
    Linear: {"weight": "weight", "bias": "bias"},
    BatchNorm: {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "running_mean",
        "running_var": "running_var",
    },
}
STEMS: dict[type[Layer], str] = {Conv2d: "conv", BatchNorm: "bn", Linear: "fc"}
# Of no use to a network that predicts: how many batches there were, GoogLeNet's other classifiers.
IDLE = re.compile(r"num_batches_tracked$|^aux[12]\.")
COUNTER = "num_batches_tracked"
GOOGLENET = "inception3a.branch1.conv.weight"  # by which its states are known
IMAGENET = "imagenet"  # the data set that published weights are for


def to_published(network: Network) -> dict[str, Array]:
    """The state of a network: copies of its arrays, in the precision of its parameters.

    Raises ValueError for a network of none of these families: one that would not be found again
    from the names and shapes of its arrays, or would be found as another.
    """
    try:
        state = _state(network, _named_layers(network))
        found = _found_again(state, network)
    except (KeyError, IndexError, ValueError):
        found = None
    if found is None or list(map(_key, _core(found))) != list(map(_key, _core(network))):
        raise ValueError(
            "found a network with layers of no model of torchvision, expected alexnet, vgg, "
            "googlenet, resnet, or lenet5; a .safetensors file of distnet holds any network"
        )
    return state


def to_state(network: Network) -> dict[str, Array]:
    """As `to_published`, and with the names of layers here if it is of none of these families.

    So it is the state of a module of PyTorch whose layers have these names. Raises ValueError, one
    line, for a layer with arrays that is not one of ARRAYS.
    """
    with contextlib.suppress(ValueError):
        return to_published(network)
    return _state(network, named_as_here(network))


def _is_published(network: Network) -> bool:
    try:
        to_published(network)
    except ValueError:
        return False
    return True


def _state(network: Network, named: Named) -> dict[str, Array]:
    state: dict[str, Array] = {}
    for name, layer in named:
        for part, view in _views(layer):
            state[f"{name}.{part}"] = np.array(view, network.parameters.dtype, order="C")
        if isinstance(layer, BatchNorm):
            state[f"{name}.{COUNTER}"] = np.zeros((), np.int64)
    return state


def left_out(network: Network) -> list[str]:
    """What a network does to its inputs first, of which a state says nothing."""
    return [repr(each) for each in network.body.leaves() if isinstance(each, Resize | Standardize)]


def _found_again(state: State, network: Network) -> Network:
    """What a state alone says of its network, for images of the same shape."""
    maker, options, _, last = _recognized(state)
    shape = next(iter(_core(network))).input_shape
    found: Network = maker(shape, len(last), seed=None, dtype=network.parameters.dtype, **options)
    return found


def _core(network: Network) -> list[Layer]:
    """Its layers, but those before the first convolution, and dropout, of which no state knows."""
    aside = (Resize, Standardize, Dropout)
    return [layer for layer in network.body.leaves() if not isinstance(layer, aside)]


def _key(layer: Layer) -> tuple[object, ...]:
    """What two layers have alike that compute the same from equal arrays."""
    arrays: list[Shape] = [parameter.shape for _, parameter in layer.parameters()]
    names = ("kernel", "stride", "pad", "dilation", "eps")
    settings = [getattr(layer, name, None) for name in names]
    return type(layer), layer.output_shape, arrays, settings


def load_state(network: Network, state: State) -> None:
    """Copies what `to_state` makes of such a network into it; raises ValueError unless all fits."""
    named = list(named_as_here(network))
    is_called_so = all(f"{name}.weight" in state for name, _ in named) or not _is_published(network)
    load_published(network, state, named if is_called_so else None)


def load_published(
    network: Network, state: State, named: Iterable[tuple[str, Layer]] | None = None
) -> None:
    """Copies a state into a network; raises ValueError, one line, unless exactly all is there.

    named: the layers that hold arrays, if they are not called as in torchvision.
    """
    layers = _named_layers(network) if named is None else named
    views = {f"{name}.{part}": view for name, layer in layers for part, view in _views(layer)}
    strangers = [name for name in state if name not in views and not _is_idle(name, views)]
    if strangers:
        raise ValueError(f"found {strangers[0]!a:.80}, expected no such array in this network")
    for name, view in views.items():
        found = state.get(name)
        if found is None or found.shape != view.shape or found.dtype.kind != "f":
            what = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise ValueError(f"{name}: found {what}, expected floats {view.shape}")
    with np.errstate(over="ignore"):  # what is infinite then is for the caller to find
        for name, view in views.items():
            np.copyto(view, state[name], casting="same_kind")
    network.parameters.refresh()


def from_published(
    state: State,
    *,
    image_size: int | None = None,
    standardize: str = "none",
    dtype: DTypeLike = np.float32,
) -> Network:
    """The network of a state, of any depth, width and number of classes, with its values.

    image_size: rows and columns of pixels. Without it they are what VGG's first linear layer tells,
    or 224, or 32 (of one channel 28) where the stem is one for small images.
    standardize: what the network does to its pixels first; see `published_standardize`.
    Raises ValueError, one line, for the state of something else.
    """
    maker, options, (channels, *usual), last = _recognized(state)
    if maker is LeNet5 and standardize != "none":
        raise ValueError(
            f"found standardize {standardize!r:.40} for lenet5, expected none, as it has no layer "
            "that does it"
        )
    network: Network = maker(
        (channels, *([image_size] * 2 if image_size else usual)),
        len(last),
        seed=None,
        dtype=dtype,
        **options,
        **({} if maker is LeNet5 else {"standardize": standardize}),
    )
    load_published(network, state)
    return network


def published_standardize(state: State) -> str:
    """What weights for ImageNet expect of pixels between 0 and 1; "none" for other weights.

    Those of 1000 classes of colour pictures are for ImageNet. torchvision's GoogLeNet undoes the
    usual mean and deviation first, its weights are for 0.5 and 0.5.
    """
    _, _, (channels, _, _), last = _recognized(state)
    if channels != 3 or len(last) != 1000:
        return "none"
    return "half" if GOOGLENET in state else "imagenet"


def _is_idle(name: str, views: State) -> bool:
    """Whether an array belongs to the network with those, and is of no use to it."""
    if not IDLE.search(name):
        return False
    norm, is_counter, _ = name.partition(COUNTER)
    return GOOGLENET in views or bool(is_counter and f"{norm}running_mean" in views)


def _views(layer: Layer) -> Iterator[tuple[str, Array]]:
    """The arrays of a layer in torchvision's layouts, with the last part of their names."""
    held = {name: parameter.value for name, parameter in layer.parameters()}
    held |= {name: statistic.value for name, statistic in layer.statistics()}
    for theirs, ours in ARRAYS[type(layer)].items():
        if ours in held:
            yield theirs, held[ours].T if isinstance(layer, Linear) else held[ours]


# Names: what torchvision calls the layers that hold arrays, in the order of ours.


def _named_layers(network: Network) -> Named:
    front = Resize, Standardize
    layers = [layer for layer in network.body.layers if not isinstance(layer, front)]
    kinds = {type(layer) for layer in layers}
    if Residual in kinds:
        return _names_of_resnet(layers)
    if Branches in kinds:
        return _names_of_googlenet(layers)
    return _counted("", layers) if AvgPool2d in kinds else _names_of_chain(layers)


def named_as_here(network: Network) -> Named:
    """The layers that hold arrays, each as its parameters are called here: conv1, batchnorm1."""
    for name, layer in network.body.named_leaves():
        if not any(layer.parameters()):
            continue
        if type(layer) not in ARRAYS:
            raise ValueError(
                f"found {type(layer).__name__}, of which no state_dict is written, expected layers "
                f"with arrays to be {', '.join(kind.__name__ for kind in ARRAYS)}; a .safetensors "
                "file of distnet holds any network"
            )
        yield name, layer


def _names_of_chain(layers: list[Layer]) -> Named:
    """AlexNet, VGG: features.0, features.3, ..., classifier.1, ...: places in two lists."""
    start = next((i for i, layer in enumerate(layers) if isinstance(layer, Linear)), len(layers))
    while start and isinstance(layers[start - 1], Dropout):
        start -= 1
    yield from _placed("features.", layers[:start])
    yield from _placed("classifier.", layers[start:])


def _names_of_resnet(layers: list[Layer]) -> Named:
    """conv1, bn1, layer1.0.conv1, layer1.0.bn1, ..., layer4.2.downsample.0, ..., fc."""
    stage, number, shape = 0, 0, None
    yield from _counted("", [layer for layer in layers if isinstance(layer, Conv2d | BatchNorm)])
    for layer in layers:
        if isinstance(layer, Residual):
            same = layer.output_shape == shape
            stage, number = (stage, number + 1) if same else (stage + 1, 0)
            shape = layer.output_shape
            residual, shortcut = layer.paths
            yield from _counted(f"layer{stage}.{number}.", residual.layers)
            yield from _placed(f"layer{stage}.{number}.downsample.", shortcut.layers)
    yield "fc", layers[-1]


def _names_of_googlenet(layers: list[Layer]) -> Named:
    """conv1.conv, conv1.bn, ..., inception3a.branch1.conv, ..., inception5b.branch4.1.bn, fc."""
    stage, number = 3, 0
    stem = [layer for layer in layers if isinstance(layer, Conv2d | BatchNorm)]
    for i, (convolution, norm) in enumerate(zip(stem[::2], stem[1::2], strict=True), 1):
        yield f"conv{i}.conv", convolution
        yield f"conv{i}.bn", norm
    for layer in layers:
        if isinstance(layer, Branches):
            for i, path in enumerate(layer.paths, 1):
                yield from _units(f"inception{stage}{'abcde'[number]}.branch{i}", path.layers)
            number += 1
        elif isinstance(layer, MaxPool2d) and number:
            stage, number = stage + 1, 0
    yield "fc", layers[-1]


def _units(prefix: str, layers: Sequence[Layer]) -> Named:
    """A branch of one convolution, or of several and poolings: branch2.0.conv, branch2.1.conv."""
    units = [layer for layer in layers if isinstance(layer, Conv2d | MaxPool2d)]
    norms = iter([layer for layer in layers if isinstance(layer, BatchNorm)])
    for i, unit in enumerate(units):
        if isinstance(unit, Conv2d):
            name = prefix if len(units) == 1 else f"{prefix}.{i}"
            yield f"{name}.conv", unit
            yield f"{name}.bn", next(norms)


def _counted(prefix: str, layers: Iterable[Layer]) -> Named:
    """conv1, bn1, conv2, ...: each kind by itself."""
    counts = dict.fromkeys(STEMS, 0)
    for layer in layers:
        if type(layer) in counts:
            counts[type(layer)] += 1
            yield f"{prefix}{STEMS[type(layer)]}{counts[type(layer)]}", layer


def _placed(prefix: str, layers: Iterable[Layer]) -> Named:
    """0, 3, ...: the places of those that hold arrays in the list of all."""
    return ((f"{prefix}{i}", layer) for i, layer in enumerate(layers) if type(layer) in ARRAYS)


# And back: which network has these names and shapes. Its widest layer tells the width best.

Recognized = tuple[Any, dict[str, Any], Shape, Array]  # maker, options, input shape, last weight


def _recognized(state: State) -> Recognized:
    try:
        if "layer1.0.conv1.weight" in state:
            return _resnet(state)
        if GOOGLENET in state:
            return _googlenet(state)
        return _chain(state) if "features.0.weight" in state else _lenet(state)
    except (KeyError, IndexError, ValueError):
        names = ", ".join(list(state)[:3]) or "no array"
        raise ValueError(
            f"found {names!a:.150} ..., expected the state_dict of a model of torchvision that "
            "distnet has: alexnet, vgg, googlenet, resnet; or of lenet5"
        ) from None


def _resnet(state: State) -> Recognized:
    stem = state["conv1.weight"]
    blocks: list[int] = []
    while count := _count(state, rf"layer{len(blocks) + 1}\.(\d+)\.conv1\.weight"):
        blocks.append(count)
    options = {
        "blocks": tuple(blocks),
        "bottleneck": "layer1.0.conv3.weight" in state,
        "batchnorm": "bn1.weight" in state,
        "width": len(state[f"layer{len(blocks)}.0.conv1.weight"]) / (64 * 2 ** (len(blocks) - 1)),
    }
    return ResNet, options, _pictures(stem), state["fc.weight"]


def _googlenet(state: State) -> Recognized:
    modules: list[int] = []
    while count := _count(state, rf"inception{len(modules) + 3}([a-e])\.branch1\.conv\.weight"):
        modules.append(count)
    stem = [array for name, array in state.items() if re.fullmatch(r"conv\d\.conv\.weight", name)]
    options = {"modules": tuple(modules), "width": len(stem[-1]) / 192}
    return GoogLeNet, options, _pictures(stem[0]), state["fc.weight"]


def _chain(state: State) -> Recognized:
    """AlexNet or VGG."""
    weights = {
        part: {
            int(name.split(".")[1]): array
            for name, array in state.items()
            if name.startswith(part) and name.endswith(".weight") and array.ndim == num_dims
        }
        for part, num_dims in (("features", 4), ("classifier", 2))
    }
    first, *_ = convolutions = list(weights["features"].values())
    *hidden, last = linear = list(weights["classifier"].values())
    options: dict[str, Any] = {"hidden_sizes": tuple(map(len, hidden))}
    side = math.isqrt(linear[0].shape[1] // len(convolutions[-1]))  # pixels that they see
    if first.shape[2] != 3:
        options["width"] = len(convolutions[2]) / 384
        sides = {3: 28, 4: 32} if first.shape[2] == 5 else {6: 224}
        return AlexNet, options, (first.shape[1], *2 * (sides.get(side, 224),)), last
    options["batchnorm"] = "features.1.running_mean" in state
    usual = 3 if options["batchnorm"] else 2  # places from one convolution to the next
    stages = [1]
    places = list(weights["features"])
    for place, following in pairwise(places):
        if following - place > usual:
            stages.append(0)
        stages[-1] += 1
    options["convolutions"] = tuple(stages)
    options["width"] = len(convolutions[-1]) / CHANNELS[len(stages) - 1]
    return VGG, options, (first.shape[1], *2 * (side * 2 ** len(stages),)), last


def _lenet(state: State) -> Recognized:
    stem = state["conv1.weight"]
    hidden: list[int] = []
    while f"fc{len(hidden) + 2}.weight" in state:
        hidden.append(len(state[f"fc{len(hidden) + 1}.weight"]))
    channels = stem.shape[1]
    side = 28 if channels == 1 else 32
    options = {"width": len(state["conv2.weight"]) / 16, "hidden_sizes": tuple(hidden)}
    return LeNet5, options, (channels, side, side), state[f"fc{len(hidden) + 1}.weight"]


def _pictures(stem: Array) -> Shape:
    """What a stem with that weight `(F, C, KH, KW)` is for."""
    side = 224 if stem.shape[2] > 3 else 32
    return (stem.shape[1], side, side)


def _count(state: State, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)
