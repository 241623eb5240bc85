"""BLEU: by hand, and against a reference that counts in another way."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.objectives.bleu import bleu


def test_a_word_counts_as_often_as_it_is_wanted():
    """The paper's example 2 with one reference: 'the' is there twice, not seven times."""
    said = ["the"] * 7
    wanted = ["the", "cat", "is", "on", "the", "mat"]
    assert bleu([said], [wanted], longest=1) == pytest.approx(2 / 7)


def test_by_hand():
    said = [["a", "b", "c", "d"], ["a", "b"]]
    wanted = [["a", "b", "c", "e"], ["a", "b"]]
    # Runs of 1: 5 of 6; of 2: 3 of 4; of 3: 1 of 2; of 4: none of 1.
    assert bleu(said, wanted, longest=3) == pytest.approx((5 / 6 * 3 / 4 * 1 / 2) ** (1 / 3))
    assert bleu(said, wanted) == 0


def test_a_short_text_pays_for_it_and_a_long_one_does_not():
    assert bleu([["a", "b"]], [["a", "b", "c"]], longest=2) == pytest.approx(np.exp(-0.5))
    assert bleu([["a", "b", "c"]], [["a", "b"]], longest=1) == pytest.approx(2 / 3)


def test_what_is_right_and_what_is_nothing():
    texts = [["a", "b", "c", "d", "e"], ["f"]]
    assert bleu(texts, texts) == 1
    assert bleu([["f"], []], [["f"], []]) == 1  # no runs of two to speak of
    assert bleu([[], []], texts) == bleu(texts[::-1], texts) == bleu([], []) == 0
    with pytest.raises(ValueError, match="bleu: found 1 sentences for 2"):
        bleu(texts[:1], texts)


def reference(said, wanted) -> float:
    """The same from the definition: runs are crossed out one by one."""
    precisions = []
    for n in (1, 2, 3, 4):
        found = total = 0
        for own, right in zip(said, wanted, strict=True):
            left = [right[i : i + n] for i in range(len(right)) if i + n <= len(right)]
            for i in range(len(own)):
                if i + n > len(own):
                    continue
                total += 1
                if own[i : i + n] in left:
                    left.remove(own[i : i + n])
                    found += 1
        precisions.append(found / total)
    c, r = sum(len(each) for each in said), sum(len(each) for each in wanted)
    penalty = 1.0 if c > r else np.exp(1 - r / c)
    return float(penalty * np.prod(precisions) ** 0.25)


@pytest.mark.parametrize("seed", range(5))
def test_against_the_reference(seed):
    rng = np.random.default_rng(seed)
    wanted = [rng.integers(0, 4, rng.integers(4, 9)).tolist() for _ in range(20)]
    said = [
        [w if rng.random() < 0.8 else 0 for w in each][: len(each) - seed % 2] for each in wanted
    ]
    assert bleu(said, wanted) == pytest.approx(reference(said, wanted), rel=1e-12)
    assert 0.1 < bleu(said, wanted) < 1
