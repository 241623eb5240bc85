"""In portable arithmetic every part of training has to be portable; what is not, is refused."""

import numpy as np
import pytest

import distnet
from distnet.base.arithmetic import Portable, portable
from distnet.data.augment import augmentation, composed, random_flip
from distnet.nn import Linear, Network, Tanh
from distnet.optim import Adam, make_schedule

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), np.uint8)
LABELS = np.arange(20) % 3


def network(arithmetic="portable"):
    return Network([Linear(6), Tanh(), Linear(3)], (1, 4, 4), arithmetic=arithmetic)


def fit(net=None, **settings):
    return distnet.fit(net or network(), IMAGES, LABELS, steps=2, batch_size=10, **settings)


def test_what_distnet_offers_takes_part():
    arithmetic = Portable()
    settings = {
        "lr": make_schedule("cosine", 0.1, 2, arithmetic=arithmetic),
        "augment": augmentation(shift=1, rotation=9, flip=True, brightness=0.2, cutout=1),
        "ema": 0.9,
        "clip_norm": 0.1,
        "weight_decay": 0.01,
        "validation": 0.2,
    }
    by_name = fit(optimizer="adam", **settings)
    own = network()
    optimizer = Adam(own.parameters.values.size, arithmetic=arithmetic)
    assert fit(own, optimizer=optimizer).params_sha256 != by_name.params_sha256
    assert fit(augment=composed(random_flip, random_flip)).num_steps == 2


class OwnOptimizer(Adam):
    """One that does not say what it does."""


class OwnObjective(distnet.Classification):
    """The same."""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": lambda step: 0.1}, "the learning rate: not declared portable"),
        ({"lr": make_schedule("cosine", 0.1, 2)}, "the learning rate: not declared portable"),
        ({"augment": lambda images, bits: images}, "the augmentation: not declared portable"),
        ({"augment": composed(lambda images, bits: images)}, "the augmentation: not declared"),
        ({"optimizer": OwnOptimizer(123)}, "OwnOptimizer: not declared portable"),
        ({"optimizer": Adam(123)}, "Adam: found arithmetic float32, expected that of the network"),
        ({"net": OwnObjective(network())}, "OwnObjective: not declared portable"),
    ],
)
def test_what_does_not_say_so_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        fit(**settings)


def test_in_float32_all_of_it_is_welcome():
    for settings in ({"lr": lambda step: 0.1}, {"augment": lambda images, bits: images}):
        assert fit(network("float32"), **settings).num_steps == 2


def test_one_may_promise_it():
    assert fit(lr=portable(lambda step: 0.5 / (1 + step))).num_steps == 2


def test_a_schedule_of_ones_own_by_name(monkeypatch):
    monkeypatch.setitem(distnet.SCHEDULES, "mine", lambda lr, total_steps: lambda step: lr)
    make_schedule("mine", 0.1, 5)
    with pytest.raises(ValueError, match="schedule mine: not declared portable"):
        make_schedule("mine", 0.1, 5, arithmetic=Portable())
