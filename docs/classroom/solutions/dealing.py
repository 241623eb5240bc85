"""Exercise 5, solved: each micro-batch goes to whoever would be ready with it first."""

from fractions import Fraction


def shares(num_micro_batches, speeds):
    """One after another; fractions, so that ties are the same on every machine."""
    found = [0] * len(speeds)
    for _ in range(num_micro_batches):
        ready = [Fraction(share + 1, speed) for share, speed in zip(found, speeds, strict=True)]
        found[ready.index(min(ready))] += 1
    return found
