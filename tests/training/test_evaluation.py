"""Evaluation counts every sample once, on any number of ranks and in pieces of any size."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.nn import Conv2d, Linear, Network, ReLU
from distnet.objectives import Classification
from distnet.parallel import SerialCommunicator
from distnet.training.evaluation import EvaluationStopped, evaluate
from distnet.training.step.feed import Feed

NUM_SAMPLES = 37
RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3)]


@pytest.fixture(scope="module")
def feed() -> Feed:
    rng = np.random.Generator(np.random.Philox(key=4))
    images = rng.integers(0, 256, (NUM_SAMPLES, 1, 6, 6), np.uint8)
    labels = rng.integers(0, 3, NUM_SAMPLES).astype(np.uint8)
    network = Network([Conv2d(4, 3, pad=1), ReLU(), Linear(3)], (1, 6, 6), seed=2)
    return Feed(Classification(network), images, labels)


def one_by_one(feed: Feed) -> tuple[int, float]:
    """The correct predictions and the mean loss, a sample at a time, in float64."""
    num_correct, loss_sum = 0, 0.0
    for i in range(NUM_SAMPLES):
        x, labels = feed.evaluation(slice(i, i + 1))
        logits = feed.objective.network.predict(x)[0].astype(np.float64)
        num_correct += int(logits.argmax() == labels[0])
        loss_sum += float(np.log(np.exp(logits).sum()) - logits[labels[0]])
    return num_correct, loss_sum / NUM_SAMPLES


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("micro_batch_size", [1, 5, 7, 12, 36, 37, 100])
def test_every_sample_counts_once(comm, feed, num_ranks, micro_batch_size):
    assert comm.size >= num_ranks
    result = evaluate(feed, comm, micro_batch_size)
    num_correct, loss = one_by_one(feed)
    assert 0 < num_correct < NUM_SAMPLES
    assert result["accuracy"] == num_correct / NUM_SAMPLES
    np.testing.assert_allclose(result["loss"], loss, rtol=1e-6)


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("micro_batch_size", [5, 12])
def test_ranks_find_what_one_process_finds(comm, feed, num_ranks, micro_batch_size):
    assert comm.size >= num_ranks
    alone = evaluate(feed, SerialCommunicator(), micro_batch_size)
    assert evaluate(feed, comm, micro_batch_size) == alone


@pytest.mark.parametrize("num_ranks", RANKS)
def test_all_ranks_stop_when_one_is_asked_to(comm, feed, num_ranks):
    assert comm.size >= num_ranks
    served = []

    def wants_stop():
        served.append(comm.rank)
        return comm.rank == comm.size - 1 and len(served) > 1

    with pytest.raises(EvaluationStopped):
        evaluate(feed, comm, 5, wants_stop)
    if comm.rank == comm.size - 1:
        assert len(served) == 2
    assert 0 <= evaluate(feed, comm, 5)["accuracy"] <= 1  # nothing is left of it


def test_an_empty_set_is_one_line(feed):
    nothing = Feed(feed.objective, feed.inputs[:0], feed.targets[:0])
    with pytest.raises(ValueError, match="evaluation: found a set without samples"):
        evaluate(nothing, SerialCommunicator(), 0)


class Told(Classification):
    """Measures what it is told, for each sample."""

    counts = ("told",)

    def __init__(self, network, loss, told):
        super().__init__(network)
        self.told = loss, told

    def measure(self, x, targets):
        loss, told = self.told
        return self.sums(loss * len(x), told * len(x))

    def metrics(self, loss, counts, num_samples):
        return {"loss": loss, "told": float(counts[0]) / num_samples}


def told(feed, loss, told, micro_batch_size=10):
    objective = Told(feed.objective.network, loss, told)
    return evaluate(
        Feed(objective, feed.inputs, feed.targets), SerialCommunicator(), micro_batch_size
    )


@pytest.mark.parametrize("number", [0.3, 1e-9, -2.5, 12345678.9])
def test_what_is_counted_need_not_be_whole(feed, number):
    assert told(feed, 1, number)["told"] == pytest.approx(number, rel=1e-9)


@pytest.mark.parametrize("number", [1e-9, 0.3, 5e9, 5e11])  # half squares of 1e5 and 1e6
def test_a_loss_is_true_however_large_or_small(feed, number):
    assert told(feed, number, 0)["loss"] == pytest.approx(number, rel=1e-9)


def test_losses_and_counts_beyond_the_sum_have_the_right_sign(feed):
    for beyond in (-np.inf, -1e300, np.inf, 1e300):
        result = told(feed, beyond, beyond)
        assert np.sign(result["loss"]) == np.sign(result["told"]) == np.sign(beyond)
        assert np.abs(list(result.values())).min() > 1e9
    assert told(feed, np.nan, np.nan)["loss"] > 1e9
