"""Exercise 3: float32 sums. The page is 3-floats.md."""

import numpy as np

# Three numbers of which float32 makes two sums: (a + b) + c and a + (b + c).
NUMBERS = (0.1, 0.2, 0.3)


def to_integers(vector):
    """Whole numbers (n,), int64, that stand for `vector` (n,), float32 from -1 to 1.

    A thousand of them can be added. Raises ValueError for other numbers, and for what is none.
    """
    return vector.astype(np.int64)


def from_integers(sums):
    """The floats for which sums of such integers stand; off by 1e-6 at most."""
    return sums.astype(float)


# Which of these runs end with the same bits? Say what you think, True or False, before you try.
SAME_BITS = {
    "exact on 1 rank and on 3": ...,
    "float32 on 1 rank and on 3": ...,
}
