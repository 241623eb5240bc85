"""What goes over the bus in a step on a device: counted, with NumPy in CuPy's place."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from strict import Strict, StrictArray
from test_device_pass import LABELS, X, expect_same, run, trainer

from distnet.base.arithmetic import portable
from distnet.data.augment import augmentation, drawn_shifts, random_shift
from distnet.objectives import Classification
from distnet.training.evaluation import evaluate
from distnet.training.run import Run
from distnet.training.step import device_images
from distnet.training.step.feed import Feed


class Counting(Strict):
    """Counts the bytes that go there and come back."""

    def __init__(self):
        super().__init__()
        self.sent, self.fetched = [], []

    def to_device(self, array):
        self.sent.append(array.nbytes)
        return super().to_device(array)

    def fill(self, array, values):
        self.sent.append(values.nbytes)
        array[...] = np.array(values).view(StrictArray)

    def to_host(self, array):
        self.fetched.append(array.nbytes)
        return super().to_host(array)

    def counted(self):
        """Since the last call, sorted."""
        counts = sorted(self.sent), sorted(self.fetched)
        self.sent, self.fetched = [], []
        return counts


def made(steps=0, **settings):
    device = Counting()
    on_device = trainer(device, **settings)
    for step in range(steps):
        on_device.advance(step, 10)
    device.counted()
    return on_device, device


BYTES_OF_A_PLACE, BYTES_OF_AN_IMAGE = 3 * 4, 36


@pytest.mark.parametrize(
    ("augment", "bytes_of_one"),
    [
        (None, BYTES_OF_A_PLACE),
        (augmentation(shift=2), BYTES_OF_A_PLACE),
        (augmentation(flip=True), BYTES_OF_AN_IMAGE),
        (augmentation(shift=2, flip=True), BYTES_OF_AN_IMAGE),
    ],
    ids=["as they are", "moved", "mirrored", "moved and mirrored"],
)
def test_a_step_sends_numbers_of_images_and_fetches_sums(augment, bytes_of_one):
    """Three micro-batches, of 20, 20 and 10, in two passes; parameters are not among it."""
    on_device, device = made(steps=3, augment=augment)
    on_device.advance(3, 10)
    sent, fetched = device.counted()
    bytes_of_passes = [
        # Where images are or their pixels, labels, the divisor; what dropout keeps.
        [n * bytes_of_one, n * 4, 8, n * 4 * 9]
        for n in (40, 10)
    ]
    factors = 4 * len(on_device.optimizer._rule.factors(0.1, 1))  # of the rule, such as lr
    assert sent == sorted([*bytes_of_passes[0], *bytes_of_passes[1], factors])
    assert fetched == sorted(8 * g * (3 + 2 * 4) for g in (2, 1))
    assert on_device.parameters.place.nbytes not in sent + fetched


class Watched(Counting):
    """Notes in which order a pass is begun, numbers are drawn, and something is waited for."""

    def __init__(self):
        super().__init__()
        self.events = []

    def record(self, run, *, repeatable=True):
        def again():
            self.events.append("begins")
            return run()

        return again

    def to_host(self, array):
        self.events.append("waits")
        return super().to_host(array)


@pytest.mark.parametrize("augment", [augmentation(shift=2), augmentation(flip=True)])
def test_the_next_step_is_drawn_while_the_device_computes(augment, monkeypatch):
    """Masks and the words of augmentation, but for those of the second pass of each step."""
    device = Watched()
    on_device, drawn = trainer(device, augment=augment), []
    feed, (dropout,) = on_device.feed, on_device.objective.network.body.layers[4:5]

    def watched(real):
        def draw(count, at):
            drawn.append(at.step)
            device.events.append(f"draws for step {at.step}")
            return real(count, at)

        return draw

    monkeypatch.setattr(feed, "words", watched(feed.words))
    monkeypatch.setattr(dropout, "keeps", watched(dropout.keeps))
    for step in range(4):
        device.events.clear()
        on_device.advance(step, 10)
    assert device.events == [
        *("begins", "waits"),  # for a pass over 40 samples, whose numbers were there
        *["draws for step 3"] * 2,  # for 10 samples
        *("begins", *["draws for step 4"] * 4, "waits"),
        "begins",  # the optimizer
    ]
    assert drawn == sorted(drawn)
    assert [drawn.count(step) for step in range(5)] == [6, 6, 6, 6, 4]


def test_what_is_wrong_with_the_next_step_is_told_by_it():
    """And a step that is never made has nothing to tell."""
    calls = []

    def augment(images, bits):
        calls.append(len(images))
        if len(calls) > 3:
            raise ValueError("no images")
        return images

    on_device = trainer(Strict(), augment=portable(augment))
    on_device.advance(0, 2)
    assert len(calls) == 4
    with pytest.raises(ValueError, match="no images"):
        on_device.advance(1, 2)


def test_images_go_there_once():
    device = Counting()
    on_device = trainer(device)
    device.counted()
    for step in range(3):
        on_device.advance(step, 10)
        sent, _ = device.counted()
        assert (X.nbytes in sent) is (step == 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    "augment", [None, augmentation(shift=2), augmentation(flip=True)], ids=["", "shift", "flip"]
)
def test_images_there_are_those_of_the_cpu(augment, dtype):
    settings = {"augment": augment, "inputs": X.astype(dtype)}
    expect_same(run(trainer(Strict(), **settings)), run(trainer(None, **settings)))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_are_moved_as_on_the_host(dtype):
    """Out of the picture altogether, too; NaN stays where the image is."""
    rng, most = np.random.default_rng(1), 7
    pictures = rng.integers(1, 256, (9, 3, 5, 7)).astype(dtype)
    if dtype != np.uint8:
        pictures[:, 1, 2, 3] = np.nan
    numbers = rng.integers(0, 9, 300)
    words = rng.integers(0, 2**63, 300).astype(np.uint64)
    expected = random_shift(pictures[numbers], words, most)
    places = np.stack([numbers, *drawn_shifts(words, most)], axis=1).astype(np.int32)
    device = Strict()
    there = map(device.to_device, (pictures, places.reshape(2, 150, 3)))
    found = device.to_host(device.kernels.gather(*there))
    assert found.dtype == dtype
    expected = np.moveaxis(expected, 1, -1).reshape(found.shape)
    np.testing.assert_array_equal(found, expected)


def test_images_that_may_change_or_are_too_many_stay_here(monkeypatch):
    assert trainer(Strict()).group_pass.images is not None
    assert trainer(Strict(), memory={"images": X}).group_pass.images is None
    monkeypatch.setattr(device_images, "MOST_BYTES", X.nbytes - 1)
    assert trainer(Strict()).group_pass.images is None


def test_shifts_that_are_larger_than_images_are_refused_as_on_the_host():
    for device in (Strict(), None):
        with pytest.raises(ValueError, match="found max_shift 7, expected 0 to 6"):
            trainer(device, augment=augmentation(shift=7)).advance(0, 10)


def test_parameters_come_back_once_for_who_reads_them():
    on_device, device = made(steps=3)
    parameters = on_device.parameters
    assert parameters.are_away
    for _ in range(2):
        _ = parameters.values, parameters.named(), parameters.sha256()
    assert device.counted() == ([], [parameters.place.nbytes])
    on_device.advance(3, 10)
    sent, fetched = device.counted()
    assert parameters.place.nbytes not in sent + fetched


def test_an_evaluation_is_no_reason():
    """Running statistics go there, three numbers of float64 for each channel."""
    on_device, device = made(steps=3)
    feed = Feed(on_device.objective, X[:20], LABELS[:20])
    with on_device.evaluating():
        evaluate(feed, on_device.comm, 20)
    sent, fetched = device.counted()
    assert sent == sorted([20 * 36 * 8, 3 * 4 * 8])
    assert fetched == [20 * 3 * 8]
    assert on_device.parameters.are_away


@pytest.mark.parametrize(
    "read",
    [
        lambda network: network.parameters.values.copy(),
        lambda network: network.body.layers[0].weight.value.copy(),
        lambda network: network.parameters.sha256(),
        lambda network: copy.deepcopy(network).parameters.values,
        lambda network: pickle.loads(pickle.dumps(network)).parameters.values,
        lambda network: network.predict(X),
    ],
    ids=["vector", "layer", "hash", "copy", "pickle", "predict"],
)
def test_who_reads_sees_the_newest(read):
    """After each step, whether somebody else has read in between or not."""
    seen = []
    for device in (Strict(), None):
        one = trainer(device)
        assert isinstance(one.objective, Classification)
        network = one.objective.network
        seen.append([])
        for step in range(4):
            one.advance(step, 10)
            seen[-1].append(read(network))
    for found, expected in zip(*seen, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_what_is_written_on_the_host_counts():
    states = []
    for device in (Strict(), None):
        one = trainer(device)
        for step in range(3):
            one.advance(step, 10)
            one.parameters.values *= 0.5
            one.parameters.statistics += 0.25
            one.parameters.refresh()
        states.append(run(one, steps=2))
    expect_same(*states)


def test_a_view_from_before_is_not_written_into():
    """It is of the past while the device is ahead; at the end of a run it is up to date."""
    on_device, _ = made()
    held = on_device.parameters.values
    on_device.advance(0, 10)
    held[...] = 0
    with pytest.raises(RuntimeError, match=r"values that a device has changed meanwhile"):
        on_device.parameters.refresh()
    Run(on_device, {}, total_steps=4).train()
    expected = trainer(None)
    Run(expected, {}, total_steps=3).train()
    assert not np.array_equal(held, expected.parameters.values)
    assert held is on_device.parameters.place
    assert not on_device.parameters.are_away
