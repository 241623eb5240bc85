"""A network that says sentences on a device: what it learns, says and looks at is the CPU's."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from strict import Strict, StrictArray

from distnet.base.arithmetic import Portable
from distnet.base.keys import MicroBatch
from distnet.device import compute_on, devices
from distnet.experiments import DeviceLabOptions, Lab, prepare
from distnet.models import NIC
from distnet.models.nic import captions, decoder_of
from distnet.nn import LSTM, Embedding, Linear, Network
from distnet.objectives import Captioning
from distnet.parallel import RankError, SerialCommunicator

WORDS, LENGTH = 6, 5
RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (4, 1, 8, 8), np.uint8)
SENTENCES = np.array([[3, 2, 0, -1, -1], [1, 0, -1, -1, -1], [5, 5, 5, 5, 0], [2, 4, 4, 0, -1]])


def speakers():
    """The same network twice, with the same values: on the processor and on a device."""
    networks = []
    for device in (None, Strict()):
        options = dict(filters=(2, 3, 4), hidden=5, embedding=3, seed=None, batchnorm=True)
        network = NIC((1, 8, 8), WORDS, LENGTH, **options).compute_in(Portable(), seed=3)
        network.parameters.values[...] = np.random.default_rng(2).standard_normal(
            network.parameters.values.size
        )
        network.parameters.refresh()
        networks.append(network if device is None else compute_on(network, device))
    return networks


def expect_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert type(one) is np.ndarray
        np.testing.assert_array_equal(one, other)


def test_it_says_the_same_and_looks_at_the_same_places():
    """Pictures of more than one number, recorded and not; with a search, too."""
    results = []
    for network in speakers():
        decoder, told = decoder_of(network), []
        for count in (4, 3, 4, 4):
            said = captions(network, PICTURES[:count])
            told += [said, decoder.said, decoder.looked_at.copy()]
        told.append(captions(network, PICTURES, beam=3))
        results.append(told)
    host, device = results
    assert len(np.unique(host[0])) > 2
    assert len(np.unique(host[0], axis=0)) > 1
    expect_equal(device, host)


def test_an_evaluation_has_the_words_that_are_given():
    """With sentences and without, of one shape: what was recorded for one is not taken for both."""
    results = []
    for network in speakers():
        objective, told = Captioning(network), []
        x = network.as_input(PICTURES).copy()
        for _ in range(3):
            told += [objective.measure(x, SENTENCES), objective.measure(x, SENTENCES[::-1])]
            told += [network.predict(PICTURES), decoder_of(network).looked_at.copy()]
        results.append(told)
    host, device = results
    assert not np.array_equal(host[0], host[1])
    expect_equal(device, host)


def test_sentences_that_cannot_be_are_refused_as_on_the_cpu():
    for sentences, words in (
        (SENTENCES[:3], r"CaptionDecoder: found sentences \(3, 5\), expected \(4, 5\)"),
        (SENTENCES + 2, "sentences: found .*, expected words from 1 to 5"),
    ):
        for network in speakers():
            objective = Captioning(network)
            with pytest.raises(ValueError, match=words):
                objective.measure(objective.as_input(PICTURES), sentences)


def reader():
    layers = [Embedding(7, 3, padding=0), LSTM(4, masked=True, last=True), Linear(2)]
    return Network(layers, (4,), arithmetic="portable", seed=1)


@pytest.mark.parametrize("wrong", [7.0, -1.0, 2.5])
def test_what_is_no_word_is_refused_as_on_the_cpu(wrong):
    texts, at = RNG.integers(0, 7, (3, 4)).astype(np.float32), MicroBatch(number=1)
    texts[1, 2] = wrong
    for network in (reader(), compute_on(reader(), Strict())):
        for call in (network.predict, lambda x, n=network: n.forward(n.as_input(x), at)):
            with pytest.raises(ValueError, match=f"Embedding: found the word {wrong:g}, expected"):
                call(texts)


def test_bytes_are_no_words():
    """As on the CPU, where they mean 0 to 1; a group of micro-batches has them as they are."""
    network = compute_on(reader(), Strict())
    with pytest.raises(ValueError, match=r"found the word 0\.00784314"):
        network.body.chain.check(np.full((1, 3, 4), 2, np.uint8))


def test_what_is_no_word_and_nobody_saw_is_not_a_number():
    network = compute_on(reader(), Strict())
    network.predict(np.ones((1, 4), np.float32))
    (embedding, *_) = network.body.chain.inner
    x = np.array([[[1.0, 7.0, 2.5, -1.0]]]).view(StrictArray)
    y = embedding.forward(x, True).view(np.ndarray)
    np.testing.assert_array_equal(np.isnan(y[0, 0]).all(axis=1), [False, True, True, True])


def test_rows_are_added_up_in_their_order():
    """Sums that depend on it: they are those of np.add.at."""
    x = RNG.standard_normal((2, 40, 3)) * 10.0 ** RNG.integers(-8, 8, (2, 40, 1))
    words = RNG.integers(0, 4, (2, 40)).astype(np.int32)
    expected = np.zeros((2, 5, 3))
    for g in range(2):
        np.add.at(expected[g], words[g], x[g])
    there = (each.view(StrictArray) for each in (x, words))
    found = Strict().kernels.sum_by_word(*there, 5).view(np.ndarray)
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(expected[0, 0], x[0][words[0] == 0][::-1].sum(axis=0))


def lab_of(monkeypatch, tmp_path, **options):
    monkeypatch.setattr(sys, "argv", ["script"])
    return prepare(SerialCommunicator(), DeviceLabOptions(str(tmp_path), **options))


def test_an_experiment_computes_where_it_is_told_to(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(devices.DEVICES, "cuda", lambda number: Strict())
    lab = lab_of(monkeypatch, tmp_path, device="cuda")
    assert "device numpy\n" in capsys.readouterr().out
    network = lab.compute(reader())
    assert network.body.device is lab.device
    assert lab_of(monkeypatch, tmp_path).compute(network) is network
    assert "device" not in capsys.readouterr().out
    assert Lab(SerialCommunicator(), tmp_path).device is None

    def no_cupy(name):
        raise ImportError("none")

    monkeypatch.setattr(devices, "import_module", no_cupy)
    monkeypatch.setitem(devices.DEVICES, "cuda", devices.Cuda)
    assert lab_of(monkeypatch, tmp_path, device="auto").device is None
    with pytest.raises(RankError, match="device cuda: found no CuPy"):
        lab_of(monkeypatch, tmp_path, device="cuda")
