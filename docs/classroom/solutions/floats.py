"""Exercise 3, solved."""

import numpy as np

NUMBERS = (1e8, -1e8, 1.0)  # beside 1e8 a 1 is less than half of the last bit

UNIT = 2.0**-40  # a thousand numbers up to 1 need 40 + 10 bits, of 63


def to_integers(vector):
    """In units of 2^-40."""
    if not (abs(vector) <= 1).all():  # false for NaN as well
        raise ValueError("expected numbers from -1 to 1")
    return np.rint(vector.astype(float) / UNIT).astype(np.int64)


def from_integers(sums):
    """Floats again."""
    return sums * UNIT


SAME_BITS = {
    "exact on 1 rank and on 3": True,
    "float32 on 1 rank and on 3": False,
}
