"""The networks that are benchmarked, in distnet and the same in PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Shape
from distnet.benchmarks.torch_twin import torch_twin
from distnet.data import Dataset, Samples
from distnet.models import MODELS, DeepConvNet, SimpleConvNet, TwoLayerNet
from distnet.nn import Conv2d, Layer, Linear, MaxPool2d, Network, ReLU
from distnet.objectives import Classification
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, SerialCommunicator
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.trainer import Trainer
from distnet.training.step.updates import optimizer_for


def vgg_like(seed: int | None = 0) -> Network:
    """Two 3x3 convolutions each of 64, 128 and 256 filters on 32 x 32 x 3, then linear 256, 10."""
    layers: list[Layer] = []
    for filters in (64, 128, 256):
        layers += [Conv2d(filters, 3, pad=1), ReLU()]
        layers += [Conv2d(filters, 3, pad=1), MaxPool2d(2), ReLU()]
    layers += [Linear(256), ReLU(), Linear(10)]
    return Network(layers, (3, 32, 32), seed=seed)


@dataclass(frozen=True)
class Case:
    """A network, the input of one sample, and the optimizer that trains it and its twin in PyTorch.

    batch_size: what a step of it is measured with, where that is not asked for.
    """

    network: Callable[..., Network]
    input_shape: Shape
    optimizer: str = "adam"
    batch_size: int = 100


DIGITS, COLOURS, PHOTOGRAPHS = (1, 28, 28), (3, 32, 32), (3, 224, 224)
CASES = {
    "deep_convnet": Case(DeepConvNet, DIGITS),
    "simple_convnet": Case(SimpleConvNet, DIGITS),
    "two_layer": Case(TwoLayerNet, DIGITS, "sgd"),
    "vgg_like": Case(vgg_like, COLOURS),
    **{
        f"{name}_32": Case(partial(MODELS[name], COLOURS, 10), COLOURS)
        for name in ("vgg11", "vgg11_bn", "resnet18", "resnet20")
    },
    **{name: Case(MODELS[name], PHOTOGRAPHS, batch_size=4) for name in ("googlenet", "resnet50")},
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
    *,
    num_batches: int = 100,
    **settings: Any,
) -> Trainer:
    """A run on random pixels, with the settings of `make_trainer`, by default in one process.

    num_batches: of an epoch. Each has a new order of the samples, which in training is rare, and
    takes a tenth of a millisecond even for four batches.
    """
    network = case.network()
    if arithmetic != FLOAT:
        network.compute_in(arithmetic)
    objective = Classification(network)
    data = random_dataset(case.input_shape, num_batches * batch_size)
    return make_trainer(
        objective,
        Feed(objective, *data.train),
        optimizer=optimizer_for(objective.parameters, case.optimizer),
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
    *,
    pools_first: bool = False,
) -> Callable[[], object]:
    """A whole training step in PyTorch: forward, loss, backward, fused optimizer.

    wrap: what is trained in place of the model, such as DistributedDataParallel of it.
    pools_first: see `torch_twin`.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    # Without values, which nobody reads: `memory` measures what PyTorch takes.
    model = torch_twin(case.network(seed=None).body, pools_first=pools_first)
    data = random_dataset(case.input_shape, batch_size)
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
