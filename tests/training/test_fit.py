"""`fit` trains on arrays: what it measures and when, on one rank and on several."""

from __future__ import annotations

import copy
import re
import threading
import warnings
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from distnet.base.errors import DataError
from distnet.base.images import channels_last_hint
from distnet.data import augmentation, dataset_from_arrays
from distnet.models import TwoLayerNet
from distnet.nn import BatchNorm, Conv2d, Dropout, Layer, Linear, Network, ReLU, Sequential
from distnet.nn.parameters import Statistic
from distnet.objectives import Adversarial, Regression, Segmentation
from distnet.optim import Optimizer, make_optimizer
from distnet.optim.schedules import step_decay
from distnet.parallel import DisagreementError, SerialCommunicator
from distnet.training.fit import fit
from distnet.training.step.trainer import TrainingDiverged
from distnet.training.watching.history import History

SHAPE = (1, 4, 4)
CLASSES = 3


def samples(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Images whose class is the row that is bright."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, n)
    images = rng.integers(0, 80, (n, *SHAPE), np.uint8)
    images[np.arange(n), 0, labels] += 160
    return images, labels


def network(seed: int = 1) -> Network:
    layers = [Linear(8), BatchNorm(), ReLU(), Dropout(0.2), Linear(CLASSES)]
    return Network(layers, SHAPE, seed=seed)


def trained(n: int = 50, **settings: Any) -> tuple[Network, History]:
    net = network()
    defaults: dict[str, Any] = {"batch_size": 20, "lr": 0.1, "seed": 3}
    return net, fit(net, *samples(n), **defaults | settings)


def test_it_learns():
    _, history = trained(epochs=20, evaluate_on={"new": samples(200)})
    assert history.accuracy("new")[0] < 0.6
    assert history.accuracy("new")[-1] > 0.9
    assert np.mean(history.losses[-3:]) < np.mean(history.losses[:3]) / 2
    assert np.mean(history.accuracies[-3:]) > 0.8


def test_an_epoch_is_all_samples_with_a_short_last_batch():
    _, history = trained(epochs=2, evaluate_on={"same": samples(50)})
    assert len(history.losses) == 2 * 3
    assert history.num_updates == [0, 3, 6]
    correct = 50 * np.array(history.accuracy("same"))
    np.testing.assert_allclose(correct, np.rint(correct), atol=1e-9)  # of all 50 samples


@pytest.mark.parametrize(
    ("steps", "every", "expected"), [(5, 2, [0, 2, 4, 5]), (4, 2, [0, 2, 4]), (0, 2, [0])]
)
def test_it_is_evaluated_before_during_and_after(steps, every, expected):
    _, history = trained(steps=steps, evaluate_every=every, evaluate_on={"same": samples(50)})
    assert history.num_updates == expected
    assert len(history.evaluations["same"]) == len(expected)


@pytest.mark.parametrize("length", [{}, {"steps": 1, "epochs": 1}])
def test_exactly_one_length_is_given(length):
    with pytest.raises(ValueError, match="expected one of them"):
        trained(**length)


def test_evaluation_leaves_training_alone():
    _, seldom = trained(steps=6, evaluate_on={"same": samples(50)})
    _, often = trained(steps=6, evaluate_on={"same": samples(50)}, evaluate_every=1)
    assert seldom.params_sha256 == often.params_sha256
    assert seldom.losses == often.losses


def test_floats_are_taken_as_they_are():
    images, labels = samples(50)
    pixels = (images * np.float32(1 / 255)).astype(np.float32)
    nets = [network(), network()]
    histories = [
        fit(net, x, labels, steps=4, lr=0.1) for net, x in zip(nets, (images, pixels), strict=True)
    ]
    assert histories[0].losses == histories[1].losses


def test_augmentation_sees_the_micro_batch_and_random_bits():
    calls = []

    def invert(images: np.ndarray, bits: np.ndarray) -> np.ndarray:
        calls.append((images.shape, bits.shape, bits.dtype))
        return 255 - images

    _, history = trained(n=20, steps=1, micro_batch_size=10, augment=invert)
    assert calls[-2:] == [((10, *SHAPE), (10,), np.uint64)] * 2
    net, (images, labels) = network(), samples(20)
    inverted = fit(net, 255 - images, labels, steps=1, batch_size=20, micro_batch_size=10, seed=3)
    assert history.losses == inverted.losses


def brighter(images, bits):
    return images * 1.5


def test_an_augmentation_that_makes_floats_of_bytes_is_refused():
    message = "augment: found float64 up to .* of bytes, expected uint8, which means 0 to 1, or fl"
    with pytest.raises(ValueError, match=message):
        trained(steps=1, augment=brighter)
    pixels, labels = samples(20)
    fit(network(), pixels / 255, labels, steps=1, augment=brighter)
    fit(network(), pixels, labels, steps=1, augment=lambda images, bits: images / 200)
    with pytest.raises(ValueError, match="augment: found 32 images, expected 16"):
        trained(steps=1, augment=lambda images, bits: np.concatenate([images, images]))
    with pytest.raises(ValueError, match="augment: found NoneType, expected 16 images"):
        trained(steps=1, augment=lambda images, bits: None)


class Noise(Layer):
    """Adds what it draws by itself."""

    kind = "noise"

    def forward(self, x, out=None, at=None):
        return x if at is None else x + self.draw(at).normal(0, 0.1, x.shape).astype(x.dtype)

    def backward(self, dy, out=None, need_dx=True):
        return dy

    def draw(self, at):
        return np.random.default_rng()


class NoisyGradient(Noise):
    """Draws on the way back."""

    kind = "back"

    def forward(self, x, out=None, at=None):
        return x

    def backward(self, dy, out=None, need_dx=True):
        return dy + self.draw(None).normal(0, 0.1, dy.shape).astype(dy.dtype)


class Mean(Noise):
    """Adds up what it should average over the batch."""

    kind = "mean"

    def build(self, shape, dtype="float32"):
        super().build(shape, dtype)
        self.mean = Statistic(shape, 0.0)
        return shape

    def statistics(self):
        yield "mean", self.mean

    def forward(self, x, out=None, at=None):
        if at is not None:
            self.mean.batch = x.mean(axis=0)
        return x - self.mean.value


class NoisyBlock(Sequential):
    """The same in a block, whose layers are not of a user's own."""

    def forward(self, x, out=None, at=None):
        return Noise().forward(super().forward(x, None, at), None, at)


class KeyedNoise(Noise):
    kind = "keyed"

    def draw(self, at):
        return np.random.default_rng([at.seed, at.step, at.number, self.index])


class Centre(Layer):
    """Takes off a mean that it keeps to itself."""

    kind = "centre"
    mean = 0.0

    def forward(self, x, out=None, at=None):
        if at is not None:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
            return x - x.mean(axis=0)
        return x - self.mean

    def backward(self, dy, out=None, need_dx=True):
        return dy - dy.mean(axis=0)


def test_layers_that_draw_or_keep_something_by_themselves_are_refused():
    images = samples(50)
    for layer, message in (
        (Noise(), "noise1: found two answers to the same micro-batch in training, expected one; "),
        (Centre(), "centre1: found another answer in evaluation after a pass in training, expec"),
        (
            NoisyGradient(),
            "back1: found two answers to the same micro-batch, expected one, on whic",
        ),
        (Mean(), "mean1: found a Statistic whose `batch` is not half as large in a batch twice as"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(Network([Linear(8), layer, Linear(CLASSES)], SHAPE), *images, steps=1)
    with pytest.raises(ValueError, match="NoisyBlock: found two answers to the same micro-batch"):
        fit(Network([NoisyBlock([Linear(CLASSES)])], SHAPE), *images, steps=1)
    fit(Network([KeyedNoise(), Linear(8), BatchNorm(), Linear(CLASSES)], SHAPE), *images, steps=1)
    draws = Network([Linear(8), Noise(), Linear(16)], (4,))
    with pytest.raises(
        ValueError, match="noise1: found two answers to the same micro-batch, expec"
    ):
        fit(
            Adversarial(draws, Network([Linear(1)], (16,))),
            images[0].reshape(50, 16),
            images[1],
            steps=1,
        )


@pytest.mark.mpi(min_size=2)
def test_a_layer_that_draws_by_its_key_gives_the_same_bits_on_any_number_of_ranks(comm):
    settings = dict(steps=4, batch_size=20, micro_batch_size=5)
    alone, together = (
        fit(
            Network([Linear(8), KeyedNoise(), Linear(CLASSES)], SHAPE),
            *samples(50),
            **settings,
            comm=c,
        )
        for c in (None, comm)
    )
    assert alone == together


def test_an_augmentation_that_draws_itself_is_refused():
    rng = np.random.default_rng(0)

    def noisy(images: np.ndarray, bits: np.ndarray) -> np.ndarray:
        return (images + rng.integers(0, 9, images.shape)).astype(np.uint8)

    with pytest.raises(ValueError, match="augment: found two results for the same images and bits"):
        trained(steps=1, augment=noisy)


def test_weight_decay_spares_biases_and_an_optimizer_may_be_given():
    decaying, _ = trained(steps=1, lr=0.5, weight_decay=0.1)
    net = network()
    size, decays = net.parameters.values.size, net.parameters.decays
    optimizer = make_optimizer("sgd", size, weight_decay=0.1, decayed=decays)
    fit(net, *samples(50), steps=1, batch_size=20, lr=0.5, seed=3, optimizer=optimizer)
    plain, _ = trained(steps=1, lr=0.5)
    np.testing.assert_array_equal(decaying.parameters.values, net.parameters.values)
    differs = decaying.parameters.values != plain.parameters.values
    assert not differs[plain.parameters.decays == 0].any()
    assert differs[plain.parameters.decays == 1].mean() > 0.9


def test_a_schedule_may_take_the_place_of_lr():
    _, constant = trained(steps=6, lr=0.1)
    _, decayed = trained(steps=6, lr=step_decay(0.1, [3], 0.1))
    assert constant.losses[:4] == decayed.losses[:4]
    assert constant.losses[4:] != decayed.losses[4:]


def test_a_schedule_that_counts_by_itself_is_refused():
    """A run that is resumed would ask it for other steps."""
    rates = iter([0.1, 0.05, 0.025])
    with pytest.raises(ValueError, match=r"lr: found 0.1 and then 0.025 for step 0, expected one"):
        trained(steps=2, lr=lambda step: next(rates))
    trained(steps=0, lr=lambda step: [][step])


def test_divergence_ends_training_and_is_told():
    images, labels = samples(50)
    net = TwoLayerNet(SHAPE, num_classes=CLASSES, activation="relu", hidden_size=8)
    with pytest.raises(TrainingDiverged):
        fit(net, images, labels, steps=50, lr=1e9)
    net = TwoLayerNet(SHAPE, num_classes=CLASSES, activation="relu", hidden_size=8)
    history = fit(
        net,
        images,
        labels,
        steps=50,
        lr=1e9,
        may_diverge=True,
        evaluate_on={"same": (images, labels)},
    )
    assert history.diverged is not None
    assert len(history.losses) < 50
    assert history.num_updates[-1] == len(history.losses)


@pytest.mark.mpi(min_size=3)
def test_ranks_share_the_work_and_agree_to_the_last_bit(comm):
    settings = {"epochs": 2, "micro_batch_size": 6, "evaluate_on": {"same": samples(37)}}
    _, alone = trained(**settings, comm=SerialCommunicator())
    _, together = trained(**settings, comm=comm)
    assert together == alone


def test_a_part_of_each_class_is_held_out():
    _, history = trained(100, epochs=2, validation=0.3, evaluate_on={"new": samples(20)})
    assert list(history.evaluations) == ["valid", "new"]
    assert len(history.losses) == 2 * 4  # of 70 samples in batches of 20


@pytest.mark.mpi(min_size=3)
def test_an_average_is_evaluated_and_kept_with_the_same_bits_on_any_number_of_ranks(comm):
    settings: dict[str, Any] = {"steps": 5, "evaluate_every": 5, "micro_batch_size": 5}
    settings |= {"evaluate_on": {"same": samples(50)}}
    net, history = trained(ema=0.5, comm=comm, **settings)
    _, alone = trained(ema=0.5, **settings)
    assert history.params_sha256 == alone.params_sha256
    assert history.evaluations == alone.evaluations
    assert history.losses == trained(**settings)[1].losses  # training does not see it
    values = [trained(**settings | {"steps": steps})[0].parameters.values for steps in range(6)]
    expected = sum(value * 0.5 ** min(6 - k, 5) for k, value in enumerate(values))
    np.testing.assert_allclose(net.parameters.values, expected, rtol=1e-4, atol=1e-6)
    logits = net.predict(np.asarray(samples(50)[0]))
    found = np.mean(logits.argmax(axis=1) == samples(50)[1])
    assert found == pytest.approx(history.accuracy("same")[-1])


# Calls that go on.


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "momentum", "ema": 0.9},
        {"lr": step_decay(0.1, [4], 0.1)},
    ],
    ids=["adam", "ema", "schedule"],
)
def test_three_calls_of_one_epoch_are_one_call_of_three(settings):
    once, whole = trained(epochs=3, **settings)
    net, history, losses = network(), None, []
    for _ in range(3):
        history = fit(
            net,
            *samples(50),
            **{"batch_size": 20, "lr": 0.1, "seed": 3, "epochs": 1, "after": history} | settings,
        )
        losses += history.losses
    assert history is not None and history.num_steps == 9
    assert losses == whole.losses
    assert history.params_sha256 == whole.params_sha256
    np.testing.assert_array_equal(net.parameters.values, once.parameters.values)


def test_the_same_order_again_is_told():
    net, _ = trained(epochs=1)
    with pytest.warns(UserWarning, match=r"seed 3 before.*order of samples again.*after=history"):
        fit(net, *samples(50), epochs=1, batch_size=20, seed=3)
    fit(net, *samples(50), epochs=1, batch_size=20, seed=4)


def test_masks_that_an_augmentation_leaves_where_they_were_are_told_of():
    images, _ = samples(20)
    masks = (images[:, 0] > 100).astype(np.uint8)
    objective = Segmentation(Network([Conv2d(2, 3, pad=1)], SHAPE))
    with pytest.warns(UserWarning, match="augment changes the images alone; .* masks and boxes wh"):
        fit(objective, images, masks, steps=1, augment=augmentation(flip=True))


def test_an_optimizer_that_has_trained_before_is_told():
    net, images = network(), samples(50)
    optimizer = make_optimizer("momentum", net.parameters.values.size)
    first = fit(net, *images, epochs=1, optimizer=optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(net, *images, epochs=1, optimizer=optimizer, after=first)
    with pytest.warns(UserWarning, match="this optimizer has trained before, and begins with what"):
        fit(network(), *images, epochs=1, optimizer=optimizer)


class Noisy(Optimizer):
    """Draws noise, another on each rank."""

    def _walk(self, params, grads, lr, t, factor):
        params -= lr * grads * np.random.default_rng().random()


class Counting(Optimizer):
    """Counts its steps by itself, and not by t or in its state."""

    num_steps = 0

    def _walk(self, params, grads, lr, t, factor):
        self.num_steps += 1
        params -= lr / self.num_steps * grads


class CountingInState(Optimizer):
    slots = ("num_steps",)

    def _update(self, p, g, factors, a, state):
        state[0][...] += 1
        p -= factors[0] / state[0] * g


@pytest.mark.parametrize("ema", [0, 0.9])
@pytest.mark.parametrize("kind", [Noisy, Counting])
def test_an_optimizer_that_keeps_or_draws_something_by_itself_is_refused(kind, ema):
    net = network()
    with pytest.raises(ValueError, match=f"{kind.__name__}: found two updates of the same param"):
        fit(net, *samples(50), steps=1, optimizer=kind(net.parameters.values.size), ema=ema)


class Rebinding(Optimizer):
    def _update(self, p, g, factors, a, state):
        p = p - factors[0] * g  # the mistake


class Late(Optimizer):
    """Makes what it keeps when it is first asked."""

    def _walk(self, params, grads, lr, t, factor):
        velocity = self.state.setdefault("velocity", np.zeros_like(params))
        velocity[...] = 0.9 * velocity + grads
        params -= lr * velocity


def test_what_an_optimizer_keeps_is_there_from_the_beginning():
    net = network()
    with pytest.raises(ValueError, match="Late: found 'velocity' in `state` after an update, and"):
        fit(net, *samples(50), steps=1, optimizer=Late(net.parameters.values.size))


class Plain(Optimizer):
    """Makes the whole step itself."""

    def step(self, params, grads, lr, t, factor=None):
        params -= lr * grads


@pytest.mark.parametrize("setting", ["clip_norm", "weight_decay"])
def test_settings_that_an_optimizer_does_not_follow_are_refused(setting):
    net = network()
    for kind, followed in ((Plain, False), (CountingInState, True)):
        optimizer = kind(net.parameters.values.size, **{setting: 0.1})
        with (
            nullcontext()
            if followed
            else pytest.raises(
                ValueError,
                match=f"{kind.__name__}: found updates for which {setting} makes no diff",
            )
        ):
            fit(net, *samples(50), steps=1, seed=int(followed), optimizer=optimizer)


def test_an_optimizer_that_changes_nothing_is_told():
    net = network()
    size = net.parameters.values.size
    with pytest.warns(UserWarning, match="an update by Rebinding changes no parameter.* in place"):
        fit(net, *samples(50), steps=1, optimizer=Rebinding(size))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(network(), *samples(50), steps=1, optimizer=CountingInState(size))


class Locked(CountingInState):
    def __init__(self, *sizes: Any) -> None:
        super().__init__(*sizes)
        self.lock = threading.Lock()  # which cannot be copied


def test_an_optimizer_that_cannot_be_copied_trains():
    net = network()
    fit(net, *samples(50), steps=1, optimizer=Locked(net.parameters.values.size))


def test_what_it_keeps_in_its_state_goes_on():
    nets, at_once = (network(), network()), dict(batch_size=20, lr=0.1, seed=1)
    made = [CountingInState(net.parameters.values.size) for net in nets]
    whole = fit(nets[0], *samples(50), steps=4, optimizer=made[0], **at_once)
    half = fit(nets[1], *samples(50), steps=2, optimizer=made[1], **at_once)
    again = CountingInState(nets[1].parameters.values.size)
    rest = fit(nets[1], *samples(50), steps=2, optimizer=again, after=half, **at_once)
    assert rest.params_sha256 == whole.params_sha256


class ByRank(Optimizer):
    """Makes something else of a gradient on each rank."""

    rank = 0

    def _walk(self, params, grads, lr, t, factor):
        params -= lr * grads * (1 + self.rank)


@pytest.mark.mpi(min_size=2)
def test_ranks_whose_networks_have_come_apart_are_noticed(comm):
    net = network()
    optimizer = ByRank(net.parameters.values.size)
    optimizer.rank = comm.rank
    with pytest.raises(DisagreementError, match=r"the parameters after training: .* of your own"):
        fit(net, *samples(50), steps=1, optimizer=optimizer, comm=comm)


def test_another_optimizer_cannot_go_on():
    net, history = trained(epochs=1, optimizer="momentum")
    with pytest.raises(ValueError, match="found after a history of Momentum, expected"):
        fit(net, *samples(50), epochs=1, after=history, optimizer="adam")


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_another_network_goes_on_only_with_a_word(optimizer):
    net, history = trained(epochs=1, optimizer=optimizer)
    settings = dict(epochs=1, after=history, optimizer=optimizer)
    with pytest.raises(ValueError, match="expected one of the same network and optimizer"):
        fit(Network([Linear(CLASSES)], SHAPE), *samples(50), **settings)
    with pytest.warns(UserWarning, match="after is the history of a call that ended with other pa"):
        fit(network(), *samples(50), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(copy.deepcopy(net), *samples(50), **settings)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_float64_network_is_trained_alike_on_any_number_of_ranks(comm, optimizer):
    values = []
    for group in (SerialCommunicator(), comm):
        net = Network([Linear(8), ReLU(), Linear(CLASSES)], SHAPE, seed=1, dtype=np.float64)
        settings = {"batch_size": 20, "micro_batch_size": 5, "comm": group}
        fit(net, *samples(50), epochs=2, optimizer=optimizer, lr=0.01, **settings)
        values.append(net.parameters.values)
    assert values[0].dtype == np.float64
    assert np.any(values[0] != values[0].astype(np.float32))
    np.testing.assert_array_equal(values[0], values[1])


def test_a_float64_step_is_that_of_its_gradient():
    """To 2^-41 for each micro-batch, as the sum is taken in multiples of 2^-40."""
    net = Network([Linear(CLASSES)], SHAPE, seed=1, dtype=np.float64)
    before, (images, labels) = net.parameters.values.copy(), samples(20)
    fit(net, images, labels, steps=1, batch_size=20, lr=1.0)
    moved = before - net.parameters.values
    net.parameters.values[...] = before
    x = images.reshape(20, -1) / 255
    weight, bias = before[: x.shape[1] * CLASSES].reshape(-1, CLASSES), before[-CLASSES:]
    z = np.exp(x @ weight + bias)
    difference = z / z.sum(1, keepdims=True) - np.eye(CLASSES)[labels]
    expected = np.concatenate([(x.T @ difference / 20).ravel(), difference.mean(0)])
    np.testing.assert_allclose(moved, expected, rtol=0, atol=2e-12)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("images", "the images and labels"),
        ("labels", "the images and labels"),
        ("evaluated", "the set 'same'"),
        ("order", "the sets to evaluate on"),
        ("lr", "the learning rate of step 0: '0.1' on rank 0; '0.2' on rank 1"),
        ("seed", "the values that the network starts with"),
        ("ratio", "layer 0 of the network: .*Dropout.* on rank 0"),
        ("augment", "what `augment` makes of the first images"),
        ("frozen", "how many values are trained, and not frozen: 15 on rank 0; 0 on rank 1"),
        ("portable", "the arithmetic of the network"),
    ],
)
def test_ranks_with_other_arrays_layers_values_or_functions_are_refused(comm, change, what):
    rng = np.random.default_rng(0)
    images, labels = rng.random((20, 4), np.float32), rng.integers(0, 3, 20)
    evaluated = images.copy()
    if comm.rank == 1:
        images[7, 2] += change == "images"
        labels[5] = (labels[5] + (change == "labels")) % 3
        evaluated[0, 0] += change == "evaluated"
    changes = {what: comm.rank == 1 and change == what for what in ("seed", "ratio")}
    layers = [Dropout(0.25 if changes["ratio"] else 0.5), Linear(3)]
    net = Network(layers, (4,), seed=int(changes["seed"]))
    if comm.rank == 1 and change == "frozen":
        net.freeze("linear1")
    if comm.rank == 1 and change == "portable":
        net = net.compute_in("portable")
    factor = np.float32(2 if comm.rank == 1 and change == "augment" else 1)
    settings = dict(evaluate_on={"same": (evaluated, labels)}, augment=lambda x, bits: factor * x)
    if change == "order":  # as a set of their names has it, in another process
        names = ["same", "other"][:: 1 - 2 * comm.rank]
        settings["evaluate_on"] = {name: (evaluated, labels) for name in names}
    if change == "lr":
        settings["lr"] = lambda step: 0.1 * (1 + comm.rank)
    if change == "portable":  # which the function is not
        settings["augment"] = None
    with pytest.raises(DisagreementError, match=f"the ranks differ in {what}"):
        fit(net, images, labels, steps=2, comm=comm, **settings)


def test_a_set_that_is_not_there_is_named():
    _, history = trained(steps=1, evaluate_on={"test": samples(50), "other": samples(50)})
    with pytest.raises(ValueError, match="found no set 'tset', expected one of these: 'test', 'ot"):
        history.accuracy("tset")
    _, history = trained(steps=1)
    with pytest.raises(ValueError, match="expected one of these: none, as fit had no evaluate_on"):
        history.accuracy("test")


def test_a_history_is_shown_in_a_line():
    _, history = trained(steps=300, evaluate_on={"test": samples(50)})
    shown = (
        r"<History: 300 steps, loss 1\.\d+ to 0\.\d+, test loss 0\.\d+, test accuracy [01]\.?\d*>"
    )
    assert re.fullmatch(shown, repr(history))
    assert repr(trained(steps=0)[1]) == "<History: 0 steps>"


def test_only_a_classifier_has_accuracies():
    objective = Regression(Network([Linear(2)], (3,)))
    inputs, targets = np.zeros((4, 3)), np.zeros((4, 2))
    history = fit(objective, inputs, targets, steps=1, evaluate_on={"same": (inputs, targets)})
    for read in (lambda: history.accuracies, lambda: history.accuracy("same")):
        with pytest.raises(ValueError, match="found the metrics 'loss', 'rmse', expected those"):
            read()


def test_an_empty_set_is_named():
    images, labels = samples(50)
    sets = {"test": (images[:0], labels[:0])}
    with pytest.raises(DataError, match="evaluate_on, 'test': images: found an empty array"):
        trained(steps=1, evaluate_on=sets)


def test_floats_that_look_like_bytes_are_told_once_where_fit_and_predict_are_called():
    images, labels = samples(50)
    net = network()
    with pytest.warns(UserWarning, match="fit: images are floats up to 2.*divide by 255") as said:
        fit(net, images.astype(float), labels, steps=1)
    assert [each.filename for each in said] == [__file__]
    with pytest.warns(UserWarning, match="predict: images are floats up to .* bytes mean 0 to 1"):
        net.predict(images.astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.predict(images.astype(np.float32) - 1)  # once for a network is enough
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(net, images / 255, labels, steps=1, seed=2)
        net.predict(images / 255)
        net.predict(images)


def test_that_nothing_is_left_to_be_trained_is_told():
    net = Network([Linear(CLASSES)], SHAPE)
    net.freeze("linear")
    with pytest.warns(UserWarning, match="fit: all layers are frozen, so nothing is trained"):
        fit(net, *samples(50), steps=1)


def test_sets_on_another_scale_than_the_training_images_are_told():
    images, labels = samples(50)
    sets = {"same": (images, labels), "other": (images.astype(float), labels)}
    with pytest.warns(UserWarning, match="fit: evaluate_on, 'other': images are floats up to 2"):
        fit(network(), images, labels, steps=1, evaluate_on=sets)


@pytest.mark.mpi(min_size=3)
def test_a_hint_is_told_by_one_rank(comm):
    images, labels = samples(50)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(network(), images.astype(float), labels, steps=1, comm=comm)
    assert len(said) == (comm.rank == 0)


def test_a_shape_with_channels_last_is_told():
    layers = [Conv2d(2, 3, pad=1), Linear(CLASSES)]
    with pytest.warns(UserWarning, match=r"fit: \(8, 8, 3\) means 8 channels of 8 x 3 pixels; "):
        fit(Network(layers, (8, 8, 3)), np.zeros((4, 8, 8, 3)), [0, 1, 2, 0], steps=1)
    with pytest.raises(DataError, match=r"input_shape \(8, 8, 1\) means 8 channels of 8 x 1"):
        fit(Network([Linear(CLASSES)], (8, 8, 1)), np.zeros((4, 1, 8, 8)), [0, 1, 2, 0], steps=1)
    with pytest.raises(ValueError, match=r"kernel of 3 does not fit .* channels come first, \(1"):
        Network([Conv2d(2, 3), Linear(CLASSES)], (8, 8, 1))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (12, 50, 1), (1, 1, 1), (3, 3, 3), (8,)])
def test_other_shapes_are_not(shape):
    assert channels_last_hint(shape) == ""


PIXELS, LABELS = samples(50)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(steps=1.5), "fit: found steps 1.5, expected a whole number of at least 0"),
        (dict(steps=True), "fit: found steps True, expected a whole number"),
        (dict(batch_size=0), "fit: found batch_size 0, expected a whole number of at least 1"),
        (dict(micro_batch_size=0), "fit: found micro_batch_size 0, expected a whole number"),
        (dict(evaluate_every=-1), "fit: found evaluate_every -1, expected a whole number of at"),
        (dict(seed=None), "fit: found seed None, expected a whole number of at least 0"),
        (dict(lr="0.1"), "fit: found lr '0.1', expected a finite number >= 0"),
        (dict(lr="cosine"), "found lr 'cosine', .*, or a schedule, as make_schedule returns it"),
        (dict(lr=np.nan), "fit: found lr nan, expected a finite number >= 0"),
        (dict(weight_decay=-1), "fit: found weight_decay -1, expected a finite number >= 0"),
        (dict(ema=1), "fit: found ema 1, expected a number >= 0 and < 1"),
        (
            dict(weight_decay=0.1, optimizer=make_optimizer("sgd", 100)),
            "fit: found weight_decay 0.1 and clip_norm 0.0 beside an optimizer that was",
        ),
        (dict(validation=(PIXELS, LABELS)), "fit: found validation \\(array.*expected a number >="),
        (dict(optimizer=type), "fit: found optimizer <class 'type'>, expected a name or what ma"),
        (dict(optimizer="Adam"), "unknown optimizer 'Adam', .*; did you mean adam?"),
        (dict(network=[Linear(3)]), r"fit: found network \[Linear\(3\)\], expected a Network, or"),
        (dict(comm=2), "fit: found comm 2, expected a communicator, as distnet.run gives it"),
        (
            dict(comm=SimpleNamespace(rank=0, size=1, allgather=list)),  # as mpi4py's
            "fit: found comm namespace.*, expected a communicator, as distnet.run gives it",
        ),
        (dict(augment="flip"), "fit: found augment 'flip', expected a function, or None"),
        (dict(after=3), "fit: found after 3, expected what an earlier call has returned"),
        (dict(evaluate_on=(PIXELS, LABELS)), "evaluate_on: found tuple, expected sets by name"),
        (dict(evaluate_on={"test": PIXELS}), "evaluate_on, 'test': found ndarray, expected .imag"),
        (dict(labels=None), r"fit: found no labels, expected fit\(network, images, labels, "),
        (dict(images=dataset_from_arrays(PIXELS, LABELS)), "fit: found a data set, expected"),
        (
            dict(images=dataset_from_arrays(PIXELS, LABELS), labels=None),
            r"fit: found a data set, expected images, labels: \*dataset.train",
        ),
        (
            dict(images=dataset_from_arrays(PIXELS, LABELS).train, labels=None),
            r"fit: found images and labels in one, expected two: \*dataset.train",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_fit_cannot_take_is_one_line(wrong, message):
    given = dict(network=network(), images=PIXELS, labels=LABELS, steps=1) | wrong
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        fit(**given)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    numbers = dict(steps=np.int64(4), batch_size=np.int32(20), lr=np.float32(0.5), seed=np.int8(3))
    assert trained(**numbers)[1] == trained(steps=4, lr=0.5)[1]


def test_inputs_of_an_objective_go_by_the_rule_for_pixels():
    """Whole numbers from 0 to 255 were taken as they are, and by `predict` refused."""
    images = np.arange(5 * 16).reshape(5, 1, 4, 4)
    objective = Segmentation(Network([Conv2d(2, 3, pad=1)], (1, 4, 4)))
    masks = (images[:, 0] > 9).astype(np.uint8)
    with pytest.raises(DataError, match="inputs: found int64, expected uint8"):
        fit(objective, images, masks, steps=1)
    with pytest.warns(UserWarning, match="images are floats up to 237 and taken as they are"):
        fit(objective, 3 * images.astype(np.float32), masks, steps=1)
    fit(objective, images.astype(np.uint8), masks, steps=1, seed=1)


def test_moments_of_single_numbers_are_told():
    """All that a BatchNorm behind a Linear hands on of a micro-batch of 1 is its beta."""
    x, labels = np.random.default_rng(0).random((20, 4), np.float32), np.arange(20) % 3
    net = Network([Linear(5), BatchNorm(), ReLU(), Linear(3)], (4,))
    with pytest.warns(UserWarning, match="batchnorm1: found micro-batches of 1, of which each"):
        fit(net, x, labels, steps=1, micro_batch_size=1)
    net.freeze("batchnorm")
    fit(net, x, labels, steps=1, micro_batch_size=1, seed=1)
    fit(net.freeze() or net, x, labels, steps=1, micro_batch_size=2, seed=2)


def test_a_set_does_not_take_the_place_of_the_samples_held_out():
    with pytest.raises(ValueError, match="found 'valid' beside validation"):
        trained(steps=1, validation=0.2, evaluate_on={"valid": samples(50)})
