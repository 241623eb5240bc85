"""Exercise 7, solved for NUMBER = 1; another number has other answers."""

import numpy as np

NUMBER = 1


def flipped_bit(one, other):
    """The bits in which both differ are those of their exclusive or: one bit, a power of two."""
    one, other = np.array([one, other], np.float32).view(np.uint32)
    return int(one ^ other).bit_length() - 1


# distnet compare runs/flip-1/healthy runs/flip-1/flipped
STEP = 10
ARRAY = "params.linear2.weight"
INDEX = (5, 7)
BIT = 21

# mpirun -n 3 python -m distnet.exercises.bit_flip 1
RANK = 0
