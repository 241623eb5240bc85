"""CaptionDecoder: whose words it follows, and PyTorch's numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from layer_table import TRAIN, build, images

from distnet.nn import CaptionDecoder

WORDS, LENGTH = 6, 5
GIVEN = np.array([[1, 2, 0, -1, -1], [3, 3, 5, 4, 0], [0, -1, -1, -1, -1]])


def decoder(seed=0, dtype=np.float64):
    layer = CaptionDecoder(WORDS, LENGTH, hidden=4, embedding=3)
    return build(layer, (3, 2, 4), dtype, seed)


def features():
    return images((3, 3, 2, 4), seed=3)


def test_it_says_the_likeliest_word_and_nothing_behind_the_end():
    ends = set()
    for seed in range(8):
        layer = decoder(seed)
        logits = layer.forward(features())[:, :, 1:].copy()
        likeliest = logits.argmax(axis=1)
        for row, said in zip(likeliest, layer.said, strict=True):
            stop = int(np.argmax(row == 0)) if (row == 0).any() else LENGTH
            np.testing.assert_array_equal(said[: stop + 1], row[: stop + 1])
            assert not said[stop:].any()
            ends.add(stop)
        layer.given = layer.said
        np.testing.assert_allclose(layer.forward(features())[:, :, 1:], logits, rtol=1e-12)
    assert len(ends) > 2  # of all kinds


def test_logits_depend_on_the_words_in_front_alone():
    layer = decoder()
    layer.given = GIVEN
    before = layer.forward(features()).copy()
    layer.given = GIVEN.copy()
    layer.given[1, 2] = 1
    after = layer.forward(features())
    changed = (after != before).any(axis=1)
    np.testing.assert_array_equal(changed[1], [False, False, False, False, True, True])
    assert not changed[[0, 2]].any()


def test_several_sentences_for_each_picture():
    layer, words = decoder(), np.stack([GIVEN, GIVEN[::-1]], axis=1)  # (3, 2, 5)
    layer.forward(features())
    found = layer.logits_of(words)
    for b in range(2):
        layer.given = words[:, b]
        expected = layer.forward(features())[:, :, 1:].transpose(0, 2, 1)
        np.testing.assert_allclose(found[:, b], expected, rtol=1e-11)


def test_where_it_looked():
    layer = decoder()
    layer.given = GIVEN
    layer.forward(features())
    assert layer.looked_at.shape == (3, LENGTH, 2, 4)
    np.testing.assert_allclose(layer.looked_at.sum(axis=(2, 3)), 1)


def test_which_words_occur_is_told_from_the_brightest_features():
    layer, x = decoder(), features()
    told = layer.forward(x)[:, :, 0].copy()
    highest = x.max(axis=(2, 3))
    expected = highest @ layer.presence.weight.value + layer.presence.bias.value
    np.testing.assert_allclose(told, expected, rtol=1e-12)


def test_a_copy_is_a_new_one():
    layer = decoder()
    layer.given = GIVEN
    again = build(copy.deepcopy(layer), (3, 2, 4))
    assert again.given is None and repr(again) == repr(layer)


def test_the_numbers_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch, the extra `torch`")
    layer, x = decoder(), features()
    layer.given = GIVEN
    y, dy = layer.forward(x, at=TRAIN).copy(), images((3, WORDS, 1 + LENGTH), seed=4)
    dx = layer.backward(dy)
    p = {name: torch.tensor(each.value, requires_grad=True) for name, each in layer.parameters()}
    given = torch.tensor(np.ascontiguousarray(x), requires_grad=True)
    keys = given.flatten(2).transpose(1, 2)
    mean, order = keys.mean(dim=1), np.r_[0:8, 12:16, 8:12]  # PyTorch has i, f, g, o
    before = torch.tensor(np.maximum(np.c_[np.zeros(3, int), GIVEN[:, :-1]], 0))
    h = c = torch.zeros(3, 4, dtype=torch.float64)
    logits = [keys.max(dim=1).values @ p["presence.weight"] + p["presence.bias"]]
    for place in range(LENGTH):
        read = torch.cat([p["embedding.weight"][before[:, place]], mean], dim=1)
        z = read @ p["lstm.weight"] + h @ p["lstm.recurrent"] + p["lstm.bias"]
        i, f, g, o = z[:, order].chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        query = (h @ p["query.weight"])[:, None]
        looked = torch.nn.functional.scaled_dot_product_attention(query, keys, keys)[:, 0]
        logits.append(torch.cat([h, looked], dim=1) @ p["word.weight"] + p["word.bias"])
    expected = torch.stack(logits, dim=2)
    expected.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, parameter in layer.parameters():
        theirs = p[name].grad.numpy()
        np.testing.assert_allclose(parameter.grad, theirs, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "arguments", [(1, 4), (5, 0), (5, 4, {"hidden": 0}), (5, 4, {"embedding": -1})]
)
def test_arguments(arguments):
    *sizes, options = (*arguments, {}) if len(arguments) == 2 else arguments
    with pytest.raises(ValueError, match="CaptionDecoder: found"):
        CaptionDecoder(*sizes, **options)
    with pytest.raises(ValueError, match=r"CaptionDecoder: found input shape \(7,\)"):
        CaptionDecoder(5, 4).build((7,))
