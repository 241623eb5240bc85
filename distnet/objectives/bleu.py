"""BLEU: how much of what is said in a text is also said in the one that should have been."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

Sentence = Sequence[Hashable]


def bleu(said: Sequence[Sentence], wanted: Sequence[Sentence], longest: int = 4) -> float:
    """BLEU of a whole corpus, from 0 to 1, with one reference for each sentence.

        BP exp(1/N sum of log p_n for n = 1 ... N)        BP = min(1, exp(1 - r / c))

    (Papineni et al. 2002, "BLEU: a Method for Automatic Evaluation of Machine Translation", section
    2.3.) N = `longest`; p_n: of all runs of n words that are said, the part that is wanted in the
    same sentence as well, each at most as often as it is there; c, r: how many words are said, and
    wanted. Counts are added up over the sentences before they are divided: a mean of sentences is
    another figure. Runs that no sentence is long enough for do not count; without any that is right
    it is 0.
    """
    if len(said) != len(wanted):
        raise ValueError(f"bleu: found {len(said)} sentences for {len(wanted)}, expected as many")
    logs = []
    for n in range(1, longest + 1):
        right = total = 0
        for own, reference in zip(said, wanted, strict=True):
            runs = _runs(own, n)
            right += (runs & _runs(reference, n)).total()
            total += runs.total()
        if total and not right:
            return 0.0
        if total:
            logs.append(math.log(right / total))
    if not logs:
        return 0.0
    length, expected = (sum(map(len, each)) for each in (said, wanted))
    return math.exp(min(0.0, 1 - expected / length) + sum(logs) / len(logs))


def _runs(sentence: Sentence, n: int) -> Counter[tuple[Hashable, ...]]:
    return Counter(tuple(sentence[i : i + n]) for i in range(len(sentence) - n + 1))
