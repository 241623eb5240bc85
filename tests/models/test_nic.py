"""NIC: its size, its files, and that the beam finds the likeliest sentence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import distnet
from distnet.base.errors import DataError
from distnet.models import NIC
from distnet.models.nic import beam_search, captions, decoder_of
from distnet.nn import Conv2d, Linear, MaxPool2d, Network, log_softmax


def small(seed=0, num_words=4, length=4):
    options = dict(filters=(3, 4, 5), hidden=6, embedding=3)
    network = NIC((1, 8, 12), num_words, length, seed=seed, **options)
    network.parameters.values *= 3  # so that words differ in how likely they are
    network.parameters.refresh()
    return network


def pictures(n=5):
    return np.random.default_rng(1).integers(0, 256, (n, 1, 8, 12), np.uint8)


def test_parameters_and_outputs():
    network = NIC((1, 40, 40), 18, 9)
    assert network.parameters.size == 201_284
    assert network.output_shape == (18, 10)
    with pytest.raises(ValueError, match="height and width that 4 divides"):
        NIC((1, 42, 40), 18, 9)


@pytest.mark.parametrize(("poolings", "cell", "seen"), [(2, 4, 30), (3, 8, 42)])
def test_how_many_pixels_a_cell_stands_for_and_knows(poolings, cell, seen):
    network = NIC((1, 84, 84), 18, 10, poolings=poolings)
    step, reach = 1, 1
    for layer in network.body.layers:
        if isinstance(layer, Conv2d):
            reach += 2 * step
        elif isinstance(layer, MaxPool2d):
            reach, step = reach + step, 2 * step
    assert (step, reach) == (cell, seen)
    assert decoder_of(network).input_shape == (64, 84 // cell, 84 // cell)
    with pytest.raises(ValueError, match=r"NIC: found poolings 4, expected .* at most 3"):
        NIC((1, 84, 84), 18, 10, poolings=4)


def test_batch_normalisation_stands_behind_each_convolution_and_its_pooling():
    network = NIC((1, 84, 84), 18, 10, poolings=3, batchnorm=True)
    kinds = [type(layer).__name__ for layer in network.body.layers]
    assert kinds.count("BatchNorm") == kinds.count("Conv2d") == kinds.count("ReLU") == 5
    assert all(
        kinds[at - 1] in ("Conv2d", "MaxPool2d") for at, k in enumerate(kinds) if k == "BatchNorm"
    )
    assert network.parameters.size == 212_196 + 16 + 2 * 32 + 2 * 64  # biases for one of two


def test_a_file_keeps_everything(tmp_path):
    network = small(3)
    network.classes = tuple(".abc")
    distnet.save(network, tmp_path / "nic.safetensors")
    again = distnet.load(tmp_path / "nic.safetensors")
    np.testing.assert_array_equal(again.predict(pictures()), network.predict(pictures()))
    np.testing.assert_array_equal(captions(again, pictures()), captions(network, pictures()))
    assert again.classes == network.classes


def test_captions_of_many_pictures_come_in_blocks():
    network, many = small(), pictures(120)
    words = captions(network, many)
    assert words.shape == (120, 4)
    logits = network.predict(many)[:, :, 1:]
    first = logits[:, :, 0].argmax(axis=1)
    np.testing.assert_array_equal(words[:, 0], first)
    assert len({tuple(row) for row in words.tolist()}) > 3


def probability(network, words) -> np.ndarray:
    """The logarithm of that of each picture's sentence."""
    decoder = decoder_of(network)
    decoder.given = words
    network.forward(network.as_input(pictures()))
    log_p = log_softmax(decoder.logits_of(words[:, None])[:, 0].astype(np.float64))
    decoder.given = None
    of_words = np.take_along_axis(log_p, words[:, :, None], axis=2)[:, :, 0]
    counts = np.cumsum(words == 0, axis=1) - (words == 0) == 0  # up to the first stop
    return (of_words * counts).sum(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_likeliest_sentence_of_all(seed):
    network = small(seed, num_words=3)
    everything = {
        (*words[: words.index(0)], *[0] * (4 - words.index(0))) if 0 in words else words
        for words in itertools.product(range(3), repeat=4)
    }
    assert len(everything) == 31  # 1 + 2 + 4 + 8 that end, 16 that do not
    scores = np.stack([probability(network, np.tile(words, (5, 1))) for words in everything])
    best = np.array(list(everything))[scores.argmax(axis=0)]
    found = captions(network, pictures(), beam=31)
    np.testing.assert_array_equal(found, best)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_of_one_is_greedy_and_a_wider_one_no_worse(seed):
    network = small(seed)
    greedy = captions(network, pictures())
    network.forward(network.as_input(pictures()))
    np.testing.assert_array_equal(beam_search(decoder_of(network), 1), greedy)
    wider = captions(network, pictures(), beam=3)
    assert (probability(network, wider) >= probability(network, greedy) - 1e-6).all()


def test_a_beam_of_a_portable_network_is_portable(monkeypatch):
    """NumPy's functions differ from one processor to the next."""
    network = small().compute_in("portable")
    for name in ("exp", "log", "tanh"):
        monkeypatch.setattr(np, name, None)
    assert captions(network, pictures(), beam=3).shape == (5, 4)


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="ends in Linear, expected a CaptionDecoder"):
        captions(Network([Linear(3)], (1, 8, 12)), pictures())


def test_pictures_and_beams_that_cannot_be_are_refused():
    network = small()
    with pytest.raises(DataError, match="images: found int64, expected uint8"):
        captions(network, pictures().astype(int))
    with pytest.raises(ValueError, match="captions: found beam 0, expected a whole number"):
        captions(network, pictures(), beam=0)
