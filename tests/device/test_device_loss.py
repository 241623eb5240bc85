"""Losses that a pass computes on a device, and those that it leaves to the host: as on the CPU."""

from functools import partial

import numpy as np
import pytest
from strict import Strict
from test_device_pass import LABELS, X, expect_same, run, trainer

from distnet.base.arithmetic import FLOAT
from distnet.nn import BatchNorm, Conv2d, Dropout, Linear, MaxPool2d, ReLU, Upsample
from distnet.objectives import Regression, Segmentation
from distnet.objectives.confusion import Confusion
from distnet.training.step.device_pass import DevicePass
from distnet.training.step.device_update import DeviceOptimizer
from distnet.training.step.diagnosis import TrainingDiverged


def painter(num_channels=1):
    """From images to images of the same size."""
    narrow = [Conv2d(4, 3, pad=1), BatchNorm(), ReLU(), MaxPool2d(2), Dropout(0.2)]
    return [*narrow, Upsample(2), Conv2d(num_channels, 3, pad=1)]


def teller():
    """From images to vectors."""
    return [Linear(8), BatchNorm(), ReLU(), Linear(36)]


FLOATS = np.random.default_rng(1).normal(size=(50, 6, 6))
# Made of what, and targets.
REGRESSIONS = {
    "images of images": (painter, X),
    "three channels": (lambda: painter(3), np.concatenate([X, X[::-1], 255 - X], axis=1)),
    "vectors of images": (teller, X),
    "float64": (painter, FLOATS),
    "float32": (teller, FLOATS.astype(np.float32)),
    "whole numbers": (teller, X.astype(np.int16)),
}


def steps_of(device, objective, make, targets, steps=4, **settings):
    made = trainer(device, objective=objective, make=make, labels=targets, **settings)
    if device is not None:
        assert isinstance(made.group_pass, DevicePass)
        assert isinstance(made.optimizer, DeviceOptimizer)
    return run(made, steps)


MASKS = np.random.default_rng(2).integers(0, 3, (50, 6, 6), np.uint8)
MASKS[X[:, 0] < 100] = 255
MASKS[:20] = 255  # nobody knows a pixel of these
# Masks, and which label is ignored.
SEGMENTATIONS = {
    "some ignored": (MASKS, 255),
    "all known": ((X[:, 0] % 3).astype(np.int64), 255),
    "a class ignored": (X[:, 0] % 3, 1),
    "nothing known": (np.full_like(MASKS, 255), 255),
}
CASES = {name: (Regression, *case) for name, case in REGRESSIONS.items()} | {
    name: (partial(Segmentation, ignored=ignored), lambda: painter(3), masks)
    for name, (masks, ignored) in SEGMENTATIONS.items()
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_the_cpu(name):
    expect_same(*(steps_of(device, *CASES[name]) for device in (Strict(), None)))


@pytest.mark.parametrize("name", CASES)
def test_losses_in_float32_are_near(name):
    settings = {"arithmetic": FLOAT, "optimizer": "sgd", "steps": 1}
    found, expected = (steps_of(device, *CASES[name], **settings) for device in (Strict(), None))
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, atol=1e-4, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("objective", "targets", "words"),
    [
        (Regression, X[..., 1:], r"targets: found shape \(40, 1, 6, 5\), expected \(40, 3, 6, 6\)"),
        (Segmentation, MASKS[..., 1:], r"labels: found shape \(40, 6, 5\), expected \(40, 6, 6\)"),
        (Segmentation, np.full_like(MASKS, 3), "labels: found 3, expected at least 0 and below 3"),
    ],
)
def test_wrong_targets_are_refused(objective, targets, words):
    made = trainer(Strict(), make=lambda: painter(3), labels=targets, objective=objective)
    with pytest.raises(ValueError, match=words):
        made.advance(0, 1)


def test_a_target_that_is_not_finite_is_found_as_on_the_cpu():
    targets, texts = FLOATS.copy(), []
    targets[7, 2, 3] = np.nan
    for device in (Strict(), None):
        with pytest.raises(TrainingDiverged) as error:
            trainer(device, make=painter, labels=targets, objective=Regression).advance(0, 1)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_losses_that_are_not_there_are_the_hosts():
    """Micro-batch by micro-batch; a derived class may do something else than its base."""
    on_device = trainer(Strict(), objective=Confusion)
    assert on_device.group_pass is None
    expect_same(run(on_device), run(trainer(None, labels=LABELS, objective=Confusion)))
