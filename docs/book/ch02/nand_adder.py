"""An adder of 8-bit numbers, built of NAND gates alone (book section 2.6).

Gates work on arrays, so that one pass through the circuit adds all 65,536 pairs of bytes.
"""

from __future__ import annotations

import numpy as np
from perceptron import NAND, Bits

from distnet.experiments import Lab, Numbers, Required, exactly, main

NUM_BITS = 8

REQUIRED = [
    Required("A1", "XOR of 4 NANDs, of 00, 10, 01, 11", "xor", exactly([0, 1, 1, 0])),
    Required("A1", "wrong sums of the 8-bit adder, of 65,536", "num_wrong", exactly(0)),
]


def xor_and_nand(a: Bits, b: Bits) -> tuple[Bits, Bits]:
    """4 NANDs: the sum of two bits, and their carry inverted."""
    c = NAND(a, b)
    return NAND(NAND(a, c), NAND(b, c)), c


def half_adder(a: Bits, b: Bits) -> tuple[Bits, Bits]:
    """Sum and carry of two bits: 5 NANDs."""
    total, not_carry = xor_and_nand(a, b)
    return total, NAND(not_carry, not_carry)


def full_adder(a: Bits, b: Bits, carry: Bits) -> tuple[Bits, Bits]:
    """Sum and carry of three bits: 9 NANDs. There is a carry if either of the two additions has."""
    half, not_first = xor_and_nand(a, b)
    total, not_second = xor_and_nand(half, carry)
    return total, NAND(not_first, not_second)


def add(a: Bits, b: Bits) -> Bits:
    """The sums `(N, bits + 1)` of numbers given as bits `(N, bits)`, lowest bit first."""
    total, carry = half_adder(a[:, 0], b[:, 0])
    sums = [total]
    for i in range(1, a.shape[1]):
        total, carry = full_adder(a[:, i], b[:, i], carry)
        sums.append(total)
    return np.stack([*sums, carry], axis=1)


def to_bits(numbers: np.ndarray, num_bits: int) -> Bits:
    """`(N,)` integers as `(N, num_bits)`, lowest bit first."""
    return (numbers[:, None] >> np.arange(num_bits) & 1).astype(np.uint8)


def run(lab: Lab) -> Numbers:
    a, b = np.divmod(np.arange(1 << 2 * NUM_BITS), 1 << NUM_BITS)
    sums = add(to_bits(a, NUM_BITS), to_bits(b, NUM_BITS))
    wrong = (sums != to_bits(a + b, NUM_BITS + 1)).any(axis=1)
    bits = np.array([[0, 1, 0, 1], [0, 0, 1, 1]], np.uint8)
    return {"xor": xor_and_nand(*bits)[0], "num_sums": len(sums), "num_wrong": int(wrong.sum())}


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
