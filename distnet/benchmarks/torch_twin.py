"""The same network in PyTorch, layer by layer, as somebody who knows PyTorch would write it."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    Branches,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
)


def torch_twin(layer: Layer, *, pools_first: bool = False) -> Any:
    """A torch.nn.Module that computes what `layer`, which has been built, computes.

    Its parameters are PyTorch's own random ones. ReLU comes in front of max pooling, as networks
    are published and written in PyTorch; pools_first: behind it, where `layer` has it there, which
    is the same function with fewer numbers to go through. Raises ValueError for a layer without a
    twin.
    """
    nn: Any = importlib.import_module("torch.nn")
    match layer:
        case Sequential():
            layers = layer.layers if pools_first else _relu_first(layer.layers)
            return nn.Sequential(*(torch_twin(each, pools_first=pools_first) for each in layers))
        case Residual() | Branches():
            return _paths(layer, nn, pools_first)
        case Conv2d():
            c, bias = layer.geometry.c, layer.has_bias
            window = layer.kernel, layer.stride, layer.pad, layer.dilation
            return nn.Conv2d(c, layer.filters, *window, layer.groups, bias)
        case Linear():
            linear = nn.Linear(*layer.weight.shape, bias=layer.has_bias)
            return linear if len(layer.input_shape) == 1 else nn.Sequential(nn.Flatten(), linear)
        case BatchNorm():
            kind = nn.BatchNorm1d if len(layer.input_shape) == 1 else nn.BatchNorm2d
            return kind(layer.input_shape[0], eps=layer.eps, momentum=1 - layer.momentum)
        case MaxPool2d() | AvgPool2d():
            kind = nn.MaxPool2d if isinstance(layer, MaxPool2d) else nn.AvgPool2d
            return kind(layer.kernel, layer.stride, layer.pad, ceil_mode=layer.ceil_mode)
        case GlobalAvgPool2d():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case LocalResponseNorm():
            return nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
        case ReLU():
            return nn.ReLU(inplace=True)  # as torchvision does; the input is read by nobody else
        case Sigmoid():
            return nn.Sigmoid()
        case Dropout():
            return nn.Dropout(layer.ratio)
        case Flatten():
            return nn.Flatten()
    raise ValueError(f"{type(layer).__name__}: found no layer of PyTorch that does the same")


def pools_before_relu(layer: Layer) -> bool:
    """Whether `pools_first` makes another twin."""
    parts = layer.layers if isinstance(layer, Sequential) else getattr(layer, "paths", [])
    own = isinstance(layer, Sequential) and _relu_first(layer.layers) != list(layer.layers)
    return own or any(map(pools_before_relu, parts))


def _relu_first(layers: Iterable[Layer]) -> list[Layer]:
    """The layers with ReLU before max pooling: the same function, as the two commute."""
    layers = list(layers)
    for i, pair in enumerate(pairwise(layers)):
        if isinstance(pair[0], MaxPool2d) and isinstance(pair[1], ReLU):
            layers[i : i + 2] = reversed(pair)
    return layers


def _paths(layer: Residual | Branches, nn: Any, pools_first: bool) -> Any:
    """Modules on one input, whose outputs are added up or put side by side."""
    torch: Any = importlib.import_module("torch")
    adds = isinstance(layer, Residual)
    # Not `layer`: the class would keep it.
    modules = nn.ModuleList([torch_twin(path, pools_first=pools_first) for path in layer.paths])

    class Paths(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.paths = modules

        def forward(self, x: Any) -> Any:
            ys = [path(x) for path in self.paths]
            return ys[0] + ys[1] if adds else torch.cat(ys, dim=1)

    return Paths()
