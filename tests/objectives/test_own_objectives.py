"""Objectives of a user's own that do not come to all parameters, or return too little."""

import warnings

import numpy as np
import pytest

from distnet.nn import BatchNorm, Conv2d, Linear, MicroBatch, Network, Tanh, joined
from distnet.objectives import Objective
from distnet.optim import make_optimizer
from distnet.optim.schedules import constant
from distnet.training.fit import fit
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 6)).astype(np.float32)
T = X.sum(axis=1, keepdims=True)
SETTINGS = dict(steps=12, batch_size=30, micro_batch_size=2, lr=0.1)


class Margin(Objective):
    """Differences of less than 2 cost nothing, and a micro-batch without others has no backward."""

    def __init__(self, network):
        self.network, self.parameters = network, network.parameters

    def as_input(self, inputs):
        return self.network.as_input(inputs)

    def gradients(self, x, targets, at, divisor=None, ready=None):
        difference = self.network.forward(x, at) - targets
        dy = np.where(abs(difference) > 2, np.sign(difference), 0)
        if not dy.any():
            return self.sums(0)
        self.network.backward((dy / divisor).astype(np.float32), ready=ready)
        return self.sums(float(np.maximum(abs(difference) - 2, 0).sum()) / divisor)

    def measure(self, x, targets):
        return self.sums(float(np.maximum(abs(self.network.forward(x) - targets) - 2, 0).sum()))


class ClearsFirst(Margin):
    def gradients(self, *args, **kwargs):
        self.parameters.grads[...] = 0
        return super().gradients(*args, **kwargs)


class TakesTurns(Margin):
    """Two networks, one of which learns in each step."""

    def __init__(self, first, second):
        self.networks, self.parameters = [first, second], joined(first=first, second=second)

    def as_input(self, inputs):
        return inputs

    def gradients(self, x, targets, at, divisor=None, ready=None):
        network = self.networks[at.step % 2]
        difference = network.forward(x, at) - targets
        network.backward(difference / np.float32(divisor))
        return self.sums(float(np.square(difference).sum()) / 2 / divisor)


def network(*layers, seed=0):
    return Network([Linear(8), *layers, Tanh(), Linear(1)], (6,), seed=seed)


def test_a_micro_batch_without_backward_has_no_gradients():
    found = [fit(kind(network()), X, T, **SETTINGS) for kind in (Margin, ClearsFirst)]
    assert found[0] == found[1]
    assert 0 < found[0].losses[-1] < found[0].losses[0]


@pytest.mark.mpi(min_size=3)
def test_it_does_not_matter_which_rank_had_it(comm):
    alone, together = (fit(Margin(network()), X, T, **SETTINGS, comm=c) for c in (None, comm))
    assert alone == together


def test_a_network_that_is_not_its_turn_stays_as_it_is():
    networks = network(seed=1), network(seed=2)
    before = [each.parameters.sha256() for each in networks]
    objective = TakesTurns(*networks)
    first = fit(objective, X, T, **SETTINGS | {"steps": 1})
    second = networks[1].parameters.sha256()
    assert second == before[1]
    after = networks[0].parameters.sha256()
    assert after != before[0]
    fit(objective, X, T, **SETTINGS | {"steps": 1}, after=first)
    assert networks[0].parameters.sha256() == after
    assert networks[1].parameters.sha256() != second


class ForgetsAt(Margin):
    def gradients(self, x, targets, at, divisor=None, ready=None):
        return super().gradients(x, targets, None, divisor, ready)


def test_an_objective_that_trains_as_in_evaluation_is_told_of():
    with pytest.warns(UserWarning, match="running averages have not moved.* hands `at` to network"):
        fit(ForgetsAt(network(BatchNorm())), X, T, **SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(Margin(network(BatchNorm())), X, T, **SETTINGS)
        fit(ForgetsAt(network()), X, T, **SETTINGS)


class TooFew(Margin):
    counts = ("right", "wrong")


class TooFewMeasured(TooFew):
    def gradients(self, *args, **kwargs):
        return np.append(super().gradients(*args, **kwargs), [1, 2])


@pytest.mark.parametrize("kind", [TooFew, TooFewMeasured])
def test_too_few_sums_are_refused(kind):
    message = r"found sums of shape \(1,\), expected \(3,\), loss, right, wrong"
    with pytest.raises(ValueError, match=message):
        fit(kind(network(BatchNorm())), X, T, **SETTINGS, evaluate_on={"same": (X, T)})


class MeanOfThePiece(Margin):
    def gradients(self, x, targets, at, divisor=None, ready=None):
        return super().gradients(x, targets, at, len(x), ready)


class BySharesOfTheBatch(Margin):
    """The same loss, with a penalty of which each micro-batch has its share."""

    def gradients(self, x, targets, at, divisor=None, ready=None):
        loss = super().gradients(x, targets, at, len(x) / at.share)
        self.parameters.grads += at.share * self.parameters.values
        return loss + at.share / 2 * np.square(self.parameters.values).sum()


def test_a_mean_over_the_micro_batch_is_refused_where_there_are_several():
    with pytest.raises(ValueError, match=r"MeanOfThePiece: .* expected them to be divided by `div"):
        fit(MeanOfThePiece(network()), X, T, **SETTINGS)
    whole = SETTINGS | {"micro_batch_size": None}
    fit(BySharesOfTheBatch(network()), X, T, **SETTINGS)
    found = [fit(kind(network()), X, T, **whole).losses for kind in (Margin, MeanOfThePiece)]
    np.testing.assert_allclose(*found)


class TakesNoReady(Margin):
    def gradients(self, x, targets, at, divisor=None):
        return super().gradients(x, targets, at, divisor)


def test_methods_that_cannot_be_called_are_refused_with_what_they_are_given():
    with pytest.raises(ValueError, match=r"TakesNoReady.gradients: found .*divisor\), .* ready\)"):
        fit(TakesNoReady(network()), X, T, **SETTINGS)


class Siamese(Objective):
    """Pairs (N, 2, ...), of which the outputs shall be as far apart as the targets say."""

    def __init__(self, network):
        self.network, self.parameters = network, network.parameters

    def as_input(self, inputs):
        return inputs

    def gradients(self, x, targets, at, divisor=None, ready=None):
        one, other = (self.network.forward(each, at) for each in (x[:, 0], x[:, 1]))
        difference = one - other - targets
        dy = difference / np.float32(divisor)
        self._go_back(x, at, dy)
        return self.sums(0.5 * float(np.square(difference).sum()) / divisor)

    def measure(self, x, targets):
        one, other = (self.network.forward(each) for each in (x[:, 0], x[:, 1]))
        return self.sums(0.5 * float(np.square(one - other - targets).sum()))


class GoesForwardAgain(Siamese):
    def _go_back(self, x, at, dy):
        self.network.backward(-dy)  # of the last pass
        grads = self.parameters.grads.copy()
        self.network.forward(x[:, 0], at)
        self.network.backward(dy)
        self.parameters.grads += grads


class InOnePass(Siamese):
    def _go_back(self, x, at, dy):
        self.network.forward(np.concatenate([x[:, 0], x[:, 1]]), at)
        self.network.backward(np.concatenate([dy, -dy]))


class GoesBackTwice(Siamese):
    def _go_back(self, x, at, dy):
        self.network.backward(-dy)
        self.network.backward(dy)


class EvaluatesLast(Siamese):
    def _go_back(self, x, at, dy):
        self.measure(x, 0)
        self.network.backward(dy)


PAIRS = RNG.standard_normal((30, 2, 6)).astype(np.float32)
APART = PAIRS[:, 0].sum(axis=1, keepdims=True) - PAIRS[:, 1].sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", [GoesForwardAgain, InOnePass])
def test_what_two_passes_gave_can_be_compared(kind):
    objective = kind(network())
    at, loss = MicroBatch(), objective.measure(PAIRS, APART)[0] / len(PAIRS)
    assert objective.gradients(PAIRS, APART, at, len(PAIRS))[0] == pytest.approx(loss)
    gradient, parameters = objective.parameters.grads.copy(), objective.parameters
    parameters.values -= 1e-3 * gradient
    parameters.refresh()
    decrease = loss - objective.measure(PAIRS, APART)[0] / len(PAIRS)
    assert decrease == pytest.approx(1e-3 * float(gradient @ gradient), rel=0.05)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GoesBackTwice, "found a second one after 2 forward passes, expected one, since a network"),
        (EvaluatesLast, "found a pass in evaluation after the one in training"),
    ],
)
def test_a_pass_that_was_overwritten_has_no_gradients(kind, message):
    with pytest.raises(ValueError, match=f"backward: {message}"):
        fit(kind(network()), PAIRS, APART, **SETTINGS)


class TellsNoLoss(Margin):
    def metrics(self, loss, counts, num_samples):
        return {"margin": loss}


def test_metrics_without_the_loss_are_refused_before_it_trains():
    """And not after hours, when two evaluations have the same score."""
    with pytest.raises(ValueError, match='TellsNoLoss: metrics returned margin, expected "loss"'):
        fit(TellsNoLoss(network()), X, T, **SETTINGS)


class Adds(Margin):
    """Two passes, whose gradients are added up."""

    def gradients(self, x, targets, at, divisor=None, ready=None):
        sums = super().gradients(x, targets, at, divisor)
        first = self.parameters.grads.copy()
        sums += super().gradients(x + 1, targets, at, divisor)
        self.put(first + self.parameters.grads)
        return sums


class Replaces(Adds):
    def put(self, grads):
        self.parameters.grads = grads


class Fills(Adds):
    def put(self, grads):
        self.parameters.grads[...] = grads


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi(min_size=2))])
def test_gradients_that_are_assigned_are_those_that_are_summed(comm, ranks):
    """The sum was that of the last pass: another array was in the place of the one that is read."""
    found = [fit(kind(network()), X, T, comm=comm, **SETTINGS) for kind in (Replaces, Fills)]
    assert found[0] == found[1]


class Scales(Margin):
    """Writes into what it is given to measure."""

    def __init__(self, network, what):
        super().__init__(network)
        self.what = what

    def as_input(self, inputs):
        return inputs

    def measure(self, x, targets):
        given = {"inputs": x, "targets": targets}[self.what]
        given *= 0.5
        return super().measure(x, targets)


@pytest.mark.parametrize("what", ["inputs", "targets"])
def test_what_is_evaluated_stays_as_it_is(what):
    """It was a user's own array, and each evaluation was of other samples."""
    x, t = X.copy(), T.copy()
    with pytest.raises(ValueError, match="read-only"):
        fit(Scales(network(), what), x, t, evaluate_on={"same": (x, t)}, **SETTINGS)
    assert np.array_equal(x, X)
    assert np.array_equal(t, T)


def test_what_an_objective_of_ones_own_gets_stays():
    net = Network([Conv2d(2, 3, pad=1), Tanh()], (1, 4, 4))
    given = RNG.integers(0, 256, (2, 3, 1, 4, 4), np.uint8)
    inputs = [net.as_input(each) for each in given]
    outputs = [net.forward(each) for each in inputs]
    net.forward(inputs[0], MicroBatch())
    gradients = [net.backward(np.full_like(outputs[0], dy), need_dx=True) for dy in (1, -1)]
    np.testing.assert_array_equal(inputs, given * np.float32(1 / 255))
    np.testing.assert_array_equal(outputs, [net.predict(each) for each in given])
    np.testing.assert_array_equal(gradients[0], -gradients[1])


class ChangesTheAnnounced(Margin):
    def gradients(self, x, targets, at, divisor=None, ready=None):
        sums = super().gradients(x, targets, at, divisor, ready)
        if at.step >= self.first_step:
            self.parameters.grads[-1] *= 2
        return sums

    first_step = 0


class AnnouncesTwice(Margin):
    def gradients(self, x, targets, at, divisor=None, ready=None):
        sums = super().gradients(x, targets, at, divisor, ready)
        return sums + super().gradients(x, targets, at, divisor, ready)


ALL_APART = dict(images=X, labels=T + 9)  # so that no micro-batch is without backward


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            ChangesTheAnnounced,
            r"found other values in parameters.grads\[56:65\], of linear2.weight",
        ),
        (AnnouncesTwice, r"found ready\(56\) after ready\(0\), .*: hand `ready` to the last back"),
    ],
)
def test_gradients_that_were_announced_stay_on_one_rank_too(kind, message):
    with pytest.raises(ValueError, match=message):
        fit(kind(network()), **ALL_APART, **SETTINGS)


@pytest.mark.mpi(min_size=2)
def test_gradients_that_were_announced_stay_in_later_steps(comm):
    objective = ChangesTheAnnounced(network())
    objective.first_step = 2
    trainer = make_trainer(
        objective,
        Feed(objective, X, T + 9),
        optimizer=make_optimizer("sgd", objective.parameters.values.size),
        schedule=constant(0.01),
        batch_size=30,
        micro_batch_size=2,
        seed=0,
        comm=comm,
        bucket_bytes=100,
    )
    for step in range(2):
        trainer.step(step)
    with pytest.raises(ValueError, match=r"found other values in parameters.grads\[56:65\]"):
        trainer.step(2)


class Draws(Margin):
    def __init__(self, network):
        super().__init__(network)
        self.rng = np.random.default_rng(0)

    def gradients(self, x, *args, **kwargs):
        return super().gradients(x + self.rng.standard_normal(x.shape, np.float32), *args, **kwargs)


class DrawsByPlace(Margin):
    def gradients(self, x, targets, at, *args, **kwargs):
        noise = np.random.default_rng([at.seed, at.step, at.number])
        x = x + noise.standard_normal(x.shape, np.float32)
        return super().gradients(x, targets, at, *args, **kwargs)


class Remembers(Margin):
    mean = 0.0

    def gradients(self, x, targets, *args, **kwargs):
        self.mean += 0.1 * (targets.mean() - self.mean)
        return super().gradients(x, targets - np.float32(self.mean), *args, **kwargs)


@pytest.mark.parametrize("kind", [Draws, Remembers])
def test_what_would_depend_on_the_rank_is_refused(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: found two answers to the same micro-"):
        fit(kind(network()), **ALL_APART, **SETTINGS)
    assert fit(DrawsByPlace(network()), **ALL_APART, **SETTINGS).losses[-1] > 0
