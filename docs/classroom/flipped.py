"""Exercise 7: a bit has flipped. The page is 7-bit-flip.md."""

NUMBER = 1  # take one of your own: everybody has another flip to find


def flipped_bit(one, other):
    """Which bit of two float32 numbers differs, 0 (the last of the mantissa) to 31 (the sign)."""
    return 0


STEP = ...  # the first step after which the runs differ
ARRAY = ...  # the array that differs then, "params.…"
INDEX = ...  # the place of the number in it, (row, column)
BIT = ...  # flipped_bit of both numbers

RANK = ...  # the rank that computes wrongly in the audited run
