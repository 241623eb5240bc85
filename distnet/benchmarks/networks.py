"""The networks that are benchmarked, in distnet and the same in PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Shape
from distnet.data import Dataset, Samples
from distnet.models import MODELS, DeepConvNet, SimpleConvNet, TwoLayerNet
from distnet.nn import Conv2d, Layer, Linear, MaxPool2d, Network, ReLU
from distnet.objectives import Classification
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer, make_trainer


def vgg_like() -> Network:
    """Two 3x3 convolutions each of 64, 128 and 256 filters on 32 x 32 x 3, then linear 256, 10."""
    layers: list[Layer] = []
    for filters in (64, 128, 256):
        layers += [Conv2d(filters, 3, pad=1), ReLU()]
        layers += [Conv2d(filters, 3, pad=1), MaxPool2d(2), ReLU()]
    layers += [Linear(256), ReLU(), Linear(10)]
    return Network(layers, (3, 32, 32))


@dataclass(frozen=True)
class Case:
    """A network, its twin in PyTorch, the input of one sample, and the optimizer of both.

    batch_size: what a step of it is measured with, where that is not asked for.
    """

    network: Callable[[], Network]
    torch_layers: Callable[[Any], list[Any]]
    input_shape: Shape
    optimizer: str = "adam"
    batch_size: int = 100


def _torch_stages(nn: Any, channels: tuple[int, ...], pads: tuple[int, ...]) -> list[Any]:
    layers: list[Any] = []
    for (c, f), pad in zip(pairwise(channels), pads, strict=True):
        layers += [nn.Conv2d(c, f, 3, padding=1), nn.ReLU(), nn.Conv2d(f, f, 3, padding=pad)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return layers


def _torch_deep(nn: Any) -> list[Any]:
    head = [nn.Flatten(), nn.Linear(1024, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10)]
    return _torch_stages(nn, (1, 16, 32, 64), (1, 2, 1)) + head


def _torch_simple(nn: Any) -> list[Any]:
    head = [nn.Flatten(), nn.Linear(4320, 100), nn.ReLU(), nn.Linear(100, 10)]
    return [nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), *head]


def _torch_two_layer(nn: Any) -> list[Any]:
    return [nn.Flatten(), nn.Linear(784, 50), nn.Sigmoid(), nn.Linear(50, 10)]


def _torch_vgg(nn: Any) -> list[Any]:
    head = [nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10)]
    return _torch_stages(nn, (3, 64, 128, 256), (1, 1, 1)) + head


def _torch_convolution(nn: Any, channels: int, filters: int, kernel: int, stride: int) -> list[Any]:
    conv = nn.Conv2d(channels, filters, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(filters)]


def _torch_bottleneck(nn: Any, channels: int, filters: int, stride: int) -> Any:
    body = [*_torch_convolution(nn, channels, filters, 1, 1), nn.ReLU(inplace=True)]
    body += [*_torch_convolution(nn, filters, filters, 3, stride), nn.ReLU(inplace=True)]
    body += _torch_convolution(nn, filters, 4 * filters, 1, 1)
    project = (
        [] if channels == 4 * filters else _torch_convolution(nn, channels, 4 * filters, 1, stride)
    )

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.shortcut = nn.Sequential(*body), nn.Sequential(*project)

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.shortcut(x)

    return Residual()


def _torch_resnet50(nn: Any) -> list[Any]:
    layers = [*_torch_convolution(nn, 3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for filters, num_blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for i in range(num_blocks):
            stride = 2 if filters > 64 and i == 0 else 1
            layers += [_torch_bottleneck(nn, channels, filters, stride), nn.ReLU(inplace=True)]
            channels = 4 * filters
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]


DIGITS = (1, 28, 28)
CASES = {
    "deep_convnet": Case(DeepConvNet, _torch_deep, DIGITS),
    "simple_convnet": Case(SimpleConvNet, _torch_simple, DIGITS),
    "two_layer": Case(TwoLayerNet, _torch_two_layer, DIGITS, "sgd"),
    "vgg_like": Case(vgg_like, _torch_vgg, (3, 32, 32)),
    "resnet50": Case(MODELS["resnet50"], _torch_resnet50, (3, 224, 224), batch_size=4),
}


def random_dataset(shape: Shape, num_samples: int) -> Dataset:
    """Uniform random pixels and labels: the speed of a step does not depend on them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_samples, *shape), np.uint8)
    labels = rng.integers(0, 10, num_samples).astype(np.uint8)
    samples = Samples(images, labels)
    return Dataset("random", samples, samples, tuple("0123456789"))


def random_trainer(
    case: Case,
    batch_size: int,
    micro_batch_size: int,
    comm: Communicator | None = None,
    arithmetic: Arithmetic = FLOAT,
    **settings: Any,
) -> Trainer:
    """A run on random pixels, with the settings of `make_trainer`, by default in one process."""
    network = case.network().compute_in(arithmetic) if arithmetic.rounds else case.network()
    objective, data = Classification(network), random_dataset(case.input_shape, 4 * batch_size)
    return make_trainer(
        objective,
        Feed(objective, *data.train),
        optimizer=make_optimizer(
            case.optimizer, objective.parameters.values.size, arithmetic=arithmetic
        ),
        schedule=constant(0.0001),
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        seed=0,
        comm=comm or SerialCommunicator(),
        **settings,
    )


def torch_step(
    case: Case,
    batch_size: int,
    channels_last: bool,
    wrap: Callable[[Any], Any] = lambda model: model,
) -> Callable[[], object]:
    """A whole training step in PyTorch: forward, loss, backward, fused optimizer.

    wrap: what is trained in place of the model, such as DistributedDataParallel of it.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    data = random_dataset(case.input_shape, batch_size)
    model = torch.nn.Sequential(*case.torch_layers(torch.nn))
    x = torch.tensor(data.train.inputs.astype(np.float32) / 255)
    labels = torch.tensor(data.train.targets.astype(np.int64))
    if channels_last:
        model, x = (each.to(memory_format=torch.channels_last) for each in (model, x))
    model = wrap(model)
    optimizers = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = optimizers[case.optimizer](model.parameters(), lr=0.001, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return step
