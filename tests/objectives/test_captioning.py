"""Captioning: what it counts, its gradient, and the same bits on any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.errors import DataError
from distnet.data import load_dataset
from distnet.data.scenes import VOCABULARY, caption_scenes, captioned
from distnet.models import NIC
from distnet.models.nic import captions
from distnet.nn import Linear, MicroBatch, Network
from distnet.objectives import Captioning
from distnet.parallel import SerialCommunicator
from distnet.training.fit import fit


def small(seed=0, dtype=np.float64):
    options = dict(filters=(2, 3, 4), hidden=5, embedding=3, seed=seed, dtype=dtype)
    return NIC((1, 8, 8), 6, 5, **options)


def batch(n=7):
    rng = np.random.default_rng(1)
    x, words = rng.random((n, 1, 8, 8)), rng.integers(1, 6, (n, 5)).astype(np.int8)
    for row, stop in zip(words, rng.integers(0, 5, n), strict=True):
        row[stop], row[stop + 1 :] = 0, -1
    return x, words


def test_the_loss_and_the_counts_by_hand():
    network, (x, words) = small(), batch()
    loss, *counts = Captioning(network, presence=0.3).measure(x, words)
    decoder, expected, right, exact = network.body.layers[-1], 0.0, 0, 0
    for picture, row in zip(x, words, strict=True):
        decoder.given = row[None]
        logits = network.forward(picture[None])[0]  # (V, 1 + T)
        decoder.given = None
        told = 1 / (1 + np.exp(-logits[:, 0]))
        occurs = np.isin(np.arange(6), row)
        expected -= 0.3 * np.log(np.where(occurs, told, 1 - told)).sum()
        known = row[row >= 0]
        for place, word in enumerate(known):
            p = np.exp(logits[:, 1 + place])
            expected -= np.log(p[word] / p.sum())
        hits = logits[:, 1 : 1 + len(known)].argmax(axis=0) == known
        right, exact = right + hits.sum(), exact + hits.all()
    assert loss == pytest.approx(expected, rel=1e-12)
    assert counts == [(words >= 0).sum(), right, exact]
    metrics = Captioning(network).metrics(loss, np.array(counts), len(x))
    assert metrics["word_accuracy"] == right / (words >= 0).sum()
    assert metrics["exact_match"] == exact / 7 == Captioning(network).score(metrics)


def test_exact_match_is_what_the_network_says_by_itself():
    """Though the right words are put into its mouth: up to a first mistake they are its own."""
    digits = load_dataset("mnist").train
    images, sentences = captioned(caption_scenes(digits), 64)
    network = NIC((1, 40, 40), len(VOCABULARY), 9, filters=(4, 4, 8), hidden=16, seed=2)
    trained = Captioning(network)
    fit(trained, images, np.tile(sentences[:1], (64, 1)), steps=12, optimizer="adam", lr=0.02)
    sentences[::3] = sentences[0]
    _, _, _, exact = trained.measure(trained.as_input(images), sentences)
    said = captions(network, images)
    assert exact == (said == np.maximum(sentences, 0)).all(axis=1).sum() >= 22


def test_the_gradient_along_random_directions():
    network, (x, words) = small(), batch()
    trained, rng, step = Captioning(network), np.random.default_rng(5), 1e-6
    values = network.parameters.values
    trained.gradients(x, words, MicroBatch())
    grads = network.parameters.grads.copy()
    for _ in range(6):
        direction, around = rng.standard_normal(values.shape), []
        for sign in (1, -1):
            values += sign * step * direction
            network.parameters.refresh()
            around.append(trained.gradients(x, words, MicroBatch())[0])
            values -= sign * step * direction
        assert grads @ direction == pytest.approx((around[0] - around[1]) / (2 * step), rel=1e-5)


def test_micro_batches_add_up_to_the_batch_though_sentences_are_of_any_length():
    trained, (x, words) = Captioning(small()), batch()
    whole = trained.gradients(x, words, MicroBatch())
    gradient, divisor = trained.parameters.grads.copy(), trained.divisor(words)
    assert divisor == (words >= 0).sum()
    sums, gradients = [], []
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        sums.append(trained.gradients(x[part], words[part], MicroBatch(), divisor))
        gradients.append(trained.parameters.grads.copy())
    np.testing.assert_allclose(sum(sums), whole, rtol=1e-12)
    np.testing.assert_allclose(sum(gradients), gradient, rtol=1e-9, atol=1e-13)


def test_what_it_cannot_train_is_refused():
    with pytest.raises(ValueError, match="ends in Linear, expected a CaptionDecoder"):
        Captioning(Network([Linear(5)], (1, 8, 8)))
    with pytest.raises(ValueError, match="found presence -1, expected at least 0"):
        Captioning(small(), presence=-1)
    x, words = batch()
    with pytest.raises(DataError, match=r"found int8 of shape \(7, 4\), expected .* \(N, 5\)"):
        Captioning(small()).measure(x, words[:, :4])
    with pytest.raises(DataError, match="found float64 of shape"):
        Captioning(small()).measure(x, words.astype(float))


@pytest.mark.parametrize(
    "sentence",
    [
        [1, 6, 0, -1, -1],  # no such word
        [1, 2, 0, -2, -1],
        [1, 2, -1, -1, -1],  # without a stop
        [1, -1, 2, 0, -1],
        [1, 2, 0, 0, 0],  # filled up with stops
        [1, 2, 0, 3, 0],  # two sentences
        [-1, -1, -1, -1, -1],
    ],
)
def test_what_is_no_sentence_is_refused(sentence):
    x, words = batch()
    words[3] = sentence
    trained = Captioning(small())
    for count in (trained.measure, lambda *given: trained.gradients(*given, MicroBatch())):
        with pytest.raises(DataError) as refused:
            count(x, words)
        expected = f"sentences: found {sentence}, expected words from 1 to 5, 0 behind the last one"
        assert expected in str(refused.value)


def test_a_sentence_may_take_all_places():
    x, words = batch()
    words[3] = [1, 2, 3, 4, 5]
    words[4] = [0, -1, -1, -1, -1]
    assert np.isfinite(Captioning(small()).measure(x, words)).all()


RUNS = [
    pytest.param(arithmetic, marks=pytest.mark.mpi(min_size=ranks), id=f"{arithmetic}-{ranks}")
    for arithmetic, ranks in (("float32", 2), ("float32", 3), ("portable", 3))
]


@pytest.mark.parametrize("arithmetic", RUNS)
def test_the_same_bits_on_any_number_of_ranks(arithmetic, comm):
    """Batches of 7 in micro-batches of 2, the last one short; sentences of 3 to 9 words."""
    samples = captioned(caption_scenes(load_dataset("mnist").train), 21)
    assert len({(row >= 0).sum() for row in samples.targets}) > 2
    histories = []
    for group in (SerialCommunicator(), comm):
        network = NIC((1, 40, 40), len(VOCABULARY), 9, filters=(3, 4, 5), hidden=8, seed=2)
        network.compute_in(arithmetic, seed=2)
        histories.append(
            fit(
                Captioning(network),
                *samples,
                steps=6,
                optimizer="adam",
                lr=0.01,
                clip_norm=5,
                batch_size=7,
                micro_batch_size=2,
                evaluate_on={"same": tuple(samples)},
                comm=group,
            )
        )
    alone, together = histories
    assert together == alone and together.params_sha256 == alone.params_sha256
    assert alone.losses[-1] < alone.losses[0]
