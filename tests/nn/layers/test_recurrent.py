"""LSTM: the recurrence written out, padding that changes nothing, and PyTorch's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layer_table import TRAIN, build, images

import distnet
from distnet.nn import LSTM, Embedding, Linear, Network

LENGTHS = (5, 2, 4, 1)  # of sequences that are padded to 5 steps


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def read_by_hand(layer: LSTM, steps: np.ndarray) -> np.ndarray:
    """h after each of the steps (T, K), number by number."""
    weights = [p.value for _, p in layer.parameters()]
    hidden = layer.hidden
    h, c, said = [0.0] * hidden, [0.0] * hidden, []
    for x in steps:
        z = x @ weights[0] + np.array(h) @ weights[1] + weights[2]
        for j in range(hidden):
            i, f, o = (sigmoid(z[q * hidden + j]) for q in range(3))
            c[j] = f * c[j] + i * math.tanh(z[3 * hidden + j])
            h[j] = o * math.tanh(c[j])
        said.append(list(h))
    return np.array(said)


def test_the_recurrence_by_hand():
    layer, x = build(LSTM(3), (4, 2)), images((2, 4, 2))
    expected = [read_by_hand(layer, steps) for steps in x]
    np.testing.assert_allclose(layer.forward(x), expected, rtol=1e-12)
    last = build(LSTM(3, last=True), (4, 2))
    np.testing.assert_array_equal(last.forward(x), layer.forward(x)[:, -1])


def test_how_it_starts():
    network = Network([LSTM(64)], (3, 36), seed=1)
    weight, recurrent, bias = network.parameters.named().values()
    for array in (weight, recurrent):
        assert array.std() == pytest.approx(0.1, rel=0.03)
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 64))


@pytest.mark.parametrize("places", ["behind", "in front", "in between"])
@pytest.mark.parametrize("last", [False, True])
def test_padding_changes_nothing(places, last):
    """Output and gradients are those of each sequence by itself, as long as it is."""
    padded = build(LSTM(3, masked=True, last=last), (5, 2))
    x, steps = images((4, 5, 2)), []
    for number, length in enumerate(LENGTHS):
        there = {
            "behind": range(length),
            "in front": range(5 - length, 5),
            "in between": sorted((2 * i) % 5 for i in range(length)),
        }[places]
        steps.append(list(there))
        x[number, [t for t in range(5) if t not in there]] = 0
    y = padded.forward(x, at=TRAIN).copy()
    dy = images(y.shape, seed=1)
    if not last:
        for number, there in enumerate(steps):  # nobody asks what is said at a padded step
            dy[number, [t for t in range(5) if t not in there]] = 0
    dx, expected = padded.backward(dy), {}
    for number, there in enumerate(steps):
        alone = build(LSTM(3, last=last), (len(there), 2))
        said = alone.forward(x[number : number + 1, there], at=TRAIN)
        np.testing.assert_allclose(said[0], y[number] if last else y[number, there], rtol=1e-12)
        part = dy[number : number + 1] if last else dy[number : number + 1, there]
        np.testing.assert_allclose(alone.backward(part)[0], dx[number, there], rtol=1e-11)
        for name, parameter in alone.parameters():
            expected[name] = expected.get(name, 0) + parameter.grad
    for name, parameter in padded.parameters():
        np.testing.assert_allclose(parameter.grad, expected[name], rtol=1e-11, atol=1e-13)


def test_a_padded_step_repeats_what_was_in_mind():
    layer, x = build(LSTM(3, masked=True), (4, 2)), images((1, 4, 2))
    x[:, 2] = 0
    y = layer.forward(x)
    np.testing.assert_array_equal(y[:, 2], y[:, 1])
    unmasked = build(LSTM(3), (4, 2))
    assert (unmasked.forward(x)[:, 2] != y[:, 2]).all()


@pytest.mark.parametrize("masked", [False, True])
def test_the_numbers_are_those_of_pytorch(masked):
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    layer = build(LSTM(3, masked=masked), (5, 2))
    x, lengths = images((4, 5, 2)), torch.tensor(LENGTHS if masked else [5] * 4)
    known = np.arange(5) < lengths.numpy()[:, None]
    x[~known] = 0
    y, dy = layer.forward(x, at=TRAIN), images((4, 5, 3), seed=1) * known[:, :, None]
    dx = layer.backward(dy)
    other = torch.nn.LSTM(2, 3, batch_first=True, dtype=torch.float64)
    order = np.r_[0:3, 3:6, 9:12, 6:9]  # PyTorch has i, f, g, o
    weight, recurrent, bias = (p.value for _, p in layer.parameters())
    with torch.no_grad():
        other.weight_ih_l0[...] = torch.from_numpy(weight[:, order].T.copy())
        other.weight_hh_l0[...] = torch.from_numpy(recurrent[:, order].T.copy())
        other.bias_ih_l0[...] = torch.from_numpy(bias[order])
        other.bias_hh_l0[...] = 0
    given = torch.from_numpy(x).requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        given, lengths, batch_first=True, enforce_sorted=False
    )
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(y[known], expected.detach().numpy()[known], rtol=1e-11)
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=1e-10, atol=1e-13)
    theirs = (other.weight_ih_l0, other.weight_hh_l0, other.bias_ih_l0)
    for (name, parameter), array in zip(layer.parameters(), theirs, strict=True):
        found = parameter.grad.T[order] if parameter.grad.ndim == 2 else parameter.grad[order]
        np.testing.assert_allclose(found, array.grad.numpy(), rtol=1e-10, err_msg=name)


def sentences(n=240):
    """Texts of 2 to 7 of the words 1 to 4, padded by 0; the label is the first word."""
    rng = np.random.default_rng(0)
    texts = rng.integers(1, 5, (n, 7)).astype(np.float32)
    texts[np.arange(7) >= rng.integers(2, 8, n)[:, None]] = 0
    return texts, texts[:, 0].astype(int) - 1


def reader(**options) -> Network:
    layers = [Embedding(5, 8, padding=0), LSTM(12, last=True, masked=True), Linear(4)]
    return Network(layers, (7,), **options)


def test_it_learns_to_remember():
    network = reader()
    history = distnet.fit(network, *sentences(), steps=80, optimizer="adam", lr=0.02, batch_size=40)
    texts, labels = sentences()
    assert (network.predict(texts).argmax(axis=1) == labels).all()
    assert history.losses[-1] < 0.2 < 1 < history.losses[0]


def test_a_file_keeps_it(tmp_path):
    network, (texts, _) = reader(seed=4), sentences()
    distnet.save(network, tmp_path / "reader.safetensors")
    again = distnet.load(tmp_path / "reader.safetensors")
    np.testing.assert_array_equal(again.predict(texts), network.predict(texts))


def test_what_is_no_sequence_is_refused():
    with pytest.raises(ValueError, match=r"LSTM: found input shape \(3, 4, 5\), expected \(T, K\)"):
        Network([LSTM(2)], (3, 4, 5))
    with pytest.raises(ValueError, match="LSTM: found hidden 0"):
        LSTM(0)
