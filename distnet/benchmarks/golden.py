"""Short trainings in portable arithmetic whose hash is known: on every machine it is that one.

`python -m distnet.benchmarks.golden CASE...`, alone or under mpirun, trains those of `CASES` and
writes their hashes as one JSON object; `--float32` trains the same in float32, whose hashes depend
on the machine. The benchmark `portability` and the tests start it under many settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distnet.base.arithmetic import FLOAT, Portable, portable
from distnet.base.arrays import Array
from distnet.data import Samples, load_dataset
from distnet.data.augment import Augment, random_affine
from distnet.device import Device, compute_on
from distnet.games import CartPole, Catch, Game
from distnet.models import NIC, DeepConvNet, ThreeLayerNet
from distnet.nn import (
    AvgPool2d,
    BatchNorm,
    BinaryConv2d,
    BinaryLinear,
    Branches,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    MaxUnpool2d,
    Network,
    ReLU,
    Residual,
    Resize,
    Sigmoid,
    Sign,
    Standardize,
    Tanh,
    Unflatten,
    Upsample,
)
from distnet.objectives import (
    Adversarial,
    Captioning,
    Classification,
    Objective,
    Regression,
    Segmentation,
    StyleTransfer,
)
from distnet.optim import OPTIMIZERS, make_optimizer, make_schedule
from distnet.parallel import Communicator, run_command
from distnet.training.playing import learn_to_play
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.islands import LocalSteps

IMAGES = (1, 28, 28)


@dataclass(frozen=True)
class GoldenCase:
    """A network, and how it is trained."""

    make: Callable[[], Network]
    steps: int = 3
    optimizer: str = "adam"
    lr: float = 0.002
    schedule: str = "linear"
    settings: dict[str, Any] = field(default_factory=dict)  # of the optimizer
    # Or "pixels", to be predicted; "ink", which of them are dark; "forgery", digits of its own;
    # "painting", digits in the style of others, of which the pixels are trained; "sentences", to be
    # said of digits.
    task: str = "digits"
    augment: Augment | None = None
    local: LocalSteps | None = None

    def train(self, comm: Communicator, ready: Callable[[Network], Network]) -> str:
        """On all ranks of `comm`, a network that is made `ready`; returns the hash."""
        network = ready(self.make())
        arithmetic = network.arithmetic
        images, labels = load_dataset("mnist").train
        objective, samples = _task(self.task, network, images, labels)
        parameters = objective.parameters
        trainer = make_trainer(
            objective,
            Feed(objective, *samples, self.augment),
            optimizer=make_optimizer(
                self.optimizer,
                parameters.values.size,
                arithmetic=arithmetic,
                decayed=parameters.decays,
                segments=[(slot.start, slot.stop) for slot in parameters.slots],
                **self.settings,
            ),
            schedule=make_schedule(self.schedule, self.lr, 2 * self.steps, arithmetic=arithmetic),
            batch_size=50,
            micro_batch_size=20,
            seed=0,
            comm=comm,
            local=self.local,
        )
        step = 0
        while step < self.steps:
            step += trainer.advance(step, self.steps).num_steps
        return parameters.sha256()


@dataclass(frozen=True)
class GoldenGame:
    """A game, and the network that learns to play it."""

    game: Game
    make: Callable[[], Network]
    steps: int = 8

    def train(self, comm: Communicator, ready: Callable[[Network], Network]) -> str:
        """On all ranks of `comm`; returns the hash, of the average of the updates."""
        history = learn_to_play(
            self.game,
            ready(self.make()),
            steps=self.steps,
            lr=0.01,
            num_steps=3,
            mirror=True,
            moves_before=30,
            target_decay=0.9,
            batch_size=40,
            micro_batch_size=16,
            evaluate_every=self.steps,
            num_games=30,
            comm=comm,
        )
        # The games that were played in between, too, and to the last move.
        results = json.dumps([history.params_sha256, history.losses, history.evaluations])
        return hashlib.sha256(results.encode()).hexdigest()


def residual_network() -> Network:
    """BatchNorm, residual sums, global average pooling, biases left out."""

    def block() -> Residual:
        return Residual([*_conv(8), ReLU(), *_conv(8)])

    layers = [*_conv(8), ReLU(), block(), ReLU(), MaxPool2d(2), block(), ReLU()]
    return Network([*layers, GlobalAvgPool2d(), Linear(10)], IMAGES, seed=None)


def _conv(filters: int) -> list[Any]:
    return [Conv2d(filters, 3, pad=1, bias=False), BatchNorm()]


def many_layers() -> Network:
    """Convolutions of all kinds of geometry, and layers that the others have not."""
    branches = Branches(
        [Conv2d(6, 1), Tanh()],
        [Conv2d(6, 3, pad=2, dilation=2, groups=2), LeakyReLU(0.1)],
        [Conv2d(6, 5, pad=2), Sigmoid()],
    )
    layers = [
        Standardize([0.5], [0.25]),
        Conv2d(8, 5, stride=2, pad=2),
        LocalResponseNorm(),
        MaxPool2d(3, stride=2, pad=1),
        branches,
        AvgPool2d(2, pad=1),
        BatchNorm(),
        Flatten(),
        Dropout(0.2),
    ]
    return Network([*layers, Linear(10, init="xavier")], IMAGES, seed=None)


def signs() -> Network:
    """Weights and activations of one bit, of which many change in a few steps."""
    layers = [
        BinaryConv2d(8, 3, stride=2, pad=1, bias=False),
        BatchNorm(),
        Sign(),
        BinaryLinear(20),
        BatchNorm(),
        Sign(),
        BinaryLinear(10, bias=False),
        BatchNorm(),
    ]
    return Network(layers, IMAGES, seed=None)


def autoencoder() -> Network:
    """Back to as many numbers as there are pixels."""
    layers = [Linear(40), Tanh(), Linear(30, bias=False), Sigmoid(), Linear(784)]
    return Network(layers, IMAGES, seed=None)


def segmenter() -> Network:
    """Down and up again, in all ways, to a logit for each class and pixel."""
    layers = [
        Conv2d(6, 3, pad=1),
        MaxPool2d(2),
        ReLU(),
        Conv2d(8, 3, pad=1),
        MaxPool2d(2),
        ConvTranspose2d(8, 3, pad=1),
        ReLU(),
        MaxUnpool2d(),
        Upsample(2, mode="bilinear"),
        Resize(28),
        Conv2d(2, 1),
    ]
    return Network(layers, IMAGES, seed=None)


def forger() -> Network:
    """From noise to images, from -1 to 1."""
    layers = [
        Linear(8 * 7 * 7, bias=False),
        Unflatten((8, 7, 7)),
        BatchNorm(),
        ReLU(),
        ConvTranspose2d(6, 4, stride=2, pad=1, bias=False),
        BatchNorm(),
        ReLU(),
        ConvTranspose2d(1, 4, stride=2, pad=1),
        Tanh(),
    ]
    return Network(layers, (16,), seed=None)


def beholder() -> Network:
    """What pictures are looked at with, before and behind its pooling."""
    layers = [
        Standardize([0.5], [1.0]),
        Conv2d(6, 3, pad=1, bias=False),
        ReLU(),
        AvgPool2d(2),
        Conv2d(8, 3, pad=1),
        ReLU(),
        GlobalAvgPool2d(),
        Linear(10),
    ]
    return Network(layers, IMAGES, seed=None)


def speaker() -> Network:
    """Reads a picture, and says a sentence of twelve words."""
    return NIC(IMAGES, 12, 4, filters=(3, 4, 6), hidden=8, embedding=4, seed=None)


def perceptron() -> Network:
    """The book's, with two hidden layers."""
    return ThreeLayerNet(IMAGES, 10, seed=None)  # type: ignore[arg-type]


def deep_network() -> Network:
    """The book's deep one."""
    return DeepConvNet(IMAGES, 10, seed=None)  # type: ignore[arg-type]


def balancer() -> Network:
    """From the state of a pole on a cart to the value of both pushes."""
    return Network([Linear(16), ReLU(), Linear(2)], (4,), seed=None)


def catcher() -> Network:
    """From the pictures of a ball and a paddle to the value of three moves."""
    return Network([Conv2d(4, 3, pad=1), ReLU(), Linear(3)], (2, 6, 6), seed=None)


@portable
def turned(images: Array, bits: NDArray[np.uint64]) -> Array:
    """Digits as somebody else might have written them."""
    return random_affine(images, bits, 15.0, (0.9, 1.1), 2.0)


_SETTINGS = {"weight_decay": 0.01, "clip_norm": 0.5}
CASES: dict[str, GoldenCase | GoldenGame] = {
    "deep_convnet": GoldenCase(deep_network),
    "residual": GoldenCase(residual_network, optimizer="momentum", lr=0.05, schedule="cosine"),
    "many_layers": GoldenCase(many_layers, optimizer="nesterov", lr=0.01, schedule="step"),
    "signs": GoldenCase(signs, lr=0.1),
    "autoencoder": GoldenCase(autoencoder, task="pixels"),
    "segmenter": GoldenCase(segmenter, task="ink"),
    "forger": GoldenCase(forger, task="forgery"),
    "painting": GoldenCase(beholder, lr=0.15, task="painting"),
    "captions": GoldenCase(speaker, task="sentences", optimizer="adamw"),
    "turned": GoldenCase(perceptron, augment=turned),
    "islands": GoldenCase(perceptron, steps=4, local=LocalSteps(islands=3, sync_every=2)),
    "cart_pole": GoldenGame(CartPole(), balancer),
    "catch": GoldenGame(Catch(6), catcher),
    **{
        f"mlp_{name}": GoldenCase(perceptron, 5, name, rule.lr, settings=_SETTINGS)
        for name, rule in OPTIMIZERS.items()
    },
}

# SHA-256 of the parameters after the steps of each case, as little-endian float32; of games, with
# what was seen on the way, see `GoldenGame`.
GOLDEN = {
    "deep_convnet": "3924829764a9e5583026e258ff7ffd179e494f2f4a338dc49332638b712e1214",
    "residual": "500f49c535eb5d0e842a34a0d3362073a557e2b399ea22b76985f4ebfa0f14b7",
    "many_layers": "05f1b36a27e443832c1348bc7bab319f99551f7c97b2165a62ff05d73c965a1b",
    "signs": "4da85d645c5f9c76da38df95d619572ec30cc40f59181a658fc7bac487d411ed",
    "autoencoder": "7aeb9394d75ef084422454d7c9e61f9bd277aee390e7b60f2aefda7c9a53aa30",
    "segmenter": "891124dc4a26766e235c6c3f367a9c57fecbbc1f3df9757e873fa42ea2e87bca",
    "forger": "818680842bb8e47d92421a46769abbe766451403fd5e0e6e127389b0ed249cd3",
    "painting": "6d1429f5c12a870d779de55779ef5642a3206dbe1eef04e77c5dc13744aa21db",
    "captions": "afc99045e87a6a581718369d19c49eb89cf8bf84551dff6d4993459f6b1b63d2",
    "turned": "db8cd52d1c8957ca923f2d87c6ed27a7fe6b6e41bcd9a19e63169829108b8572",
    "islands": "2a4d8a9b7c919108d928224d4dba395a0844f9d76918f772e747c5c0c36c3b48",
    "cart_pole": "381c105481b8942edd72413c10c634bb0fad733c86cce8b024f50d7a79a0c580",
    "catch": "e15912c05719d9f807fc04ad8f78fb6370fa925c748d58c2423a61f9e5ee2731",
    "mlp_sgd": "39c95cba988fa363425058f858393aca186c1783eca6027e11443e05ce55b88d",
    "mlp_momentum": "77e2883dd6fb0f6bd2bcdc0cec2f47b9920b811e74cf7f5bda750e5a52827cd9",
    "mlp_nesterov": "9bdc88e5d9b814ec2f229696e98f5369a8a8e7be4c71ece446125f5827c69d37",
    "mlp_adagrad": "23a8eb44ad3d6ffa5e793ebf687650d96531a20172df439298950328ce8014b9",
    "mlp_rmsprop": "03a10d1cc4afc638e75e5506f3f1a11416b52f60f640dc0927cd6214bafe0c3d",
    "mlp_adam": "00095847bacccaa1b663a502521f0df9fcb871a95d4a3fdebf94abb690d30085",
    "mlp_adamw": "b2441bb73e0ad27c5669716e9051355d3ed29e13c67c9790459425e0a94002d0",
    "mlp_lars": "2ac15c8dfe97c75ef5164749266e378fd29ffa8201485ef359a0208ca2d6d814",
    "mlp_lamb": "c5800f34423b3b139a3a3212985cae9658040a2ac657af417e1941b153fdca69",
}


def train(
    case: GoldenCase | GoldenGame,
    comm: Communicator,
    portable: bool = True,
    device: Device | None = None,
) -> str:
    """Trains it, on all ranks of `comm`; returns the hash. device: None is the CPU."""

    def ready(network: Network) -> Network:
        network.compute_in(Portable() if portable else FLOAT, seed=0)
        return network if device is None else compute_on(network, device)

    return case.train(comm, ready)


def _task(name: str, network: Network, images: Array, labels: Array) -> tuple[Objective, Samples]:
    """What is trained for, and on what."""
    if name == "pixels":
        return Regression(network), Samples(images, images)
    if name == "forgery":
        layers = [Conv2d(6, 4, stride=2, pad=1), LeakyReLU(), Flatten(), Linear(1)]
        judge = Network(layers, IMAGES, seed=None).compute_in(network.arithmetic, seed=1)
        return Adversarial(network, judge), Samples(images, labels)
    if name == "ink":
        return Segmentation(network), Samples(images, (images[:, 0] > 127).astype(np.uint8))
    if name == "painting":
        other = beholder().compute_in(network.arithmetic, seed=1)
        painting = StyleTransfer(
            [network, other],
            images[:16],
            list(images[16:32]),
            style_taps=("relu1", "relu2"),
            content_tap="relu2",
            style_weight=2.5,
            smoothness=10.0,
            tile=20,
        )
        return painting, painting.tiles
    if name == "sentences":
        return Captioning(network), Samples(images, _sentences(labels))
    return Classification(network, label_smoothing=0.1), Samples(images, labels)


def _sentences(labels: Array) -> Array:
    """ "Five odd", "six": the words 1 to 10 and 11, 0 behind the last one, and -1 behind that."""
    sentences = np.full((len(labels), 4), -1, np.int8)
    is_odd = labels % 2 == 1
    sentences[:, 0], sentences[:, 1] = 1 + labels, np.where(is_odd, 11, 0)
    sentences[is_odd, 2] = 0
    return sentences


def main(argv: list[str]) -> int:
    """What the ranks do; rank 0 writes."""
    portable = "--float32" not in argv
    names = [name for name in argv if name in CASES]

    def program(comm: Communicator) -> int:
        hashes = {name: train(CASES[name], comm, portable) for name in names}
        if comm.rank == 0:
            print(json.dumps(hashes))
        return 0

    return run_command(program, os.environ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
