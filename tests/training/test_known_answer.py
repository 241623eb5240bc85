"""The known-answer test: right here, and what it says of a machine that computes otherwise."""

import platform
import subprocess
import sys

import numpy as np
import pytest

from distnet.base.arithmetic import FLOAT, Portable
from distnet.parallel import RankError, SerialCommunicator
from distnet.training.known_answer import (
    KNOWN_SHA256,
    ForeignArithmeticError,
    check_machine,
    expect_same_bits,
    sha256_of_steps,
)

matmul = np.matmul


@pytest.fixture(autouse=True)
def _not_remembered():
    check_machine.cache_clear()
    yield
    check_machine.cache_clear()


def test_this_machine_passes():
    check_machine()
    assert sha256_of_steps() == KNOWN_SHA256
    expect_same_bits(SerialCommunicator(), Portable())
    expect_same_bits(SerialCommunicator(), FLOAT)


def in_float32(a, b, **settings):
    """A BLAS that is asked for float64 and takes a shorter way."""
    if a.dtype != np.float64:
        return matmul(a, b, **settings)
    return matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.float64)


def in_tf32(a, b, **settings):
    """With factors of 11 bits, as tensor cores round them, and exact sums."""
    factors = (np.round(x / 2.0**12) * 2.0**12 for x in (a, b))
    return matmul(*factors, **settings) if a.dtype == np.float64 else matmul(a, b, **settings)


def in_pieces(a, b, **settings):
    """With a last bit that is lost in one sum of many."""
    product = matmul(a, b, **settings)
    if product.dtype == np.float64:
        product[product == np.abs(product).max()] *= 1 - 2.0**-52
    return product


@pytest.mark.parametrize("other", [in_float32, in_tf32, in_pieces])
def test_other_products_are_found(monkeypatch, other):
    monkeypatch.setattr(np, "matmul", other)
    with pytest.raises(RankError, match="matrix products of float64 are not computed in float64"):
        expect_same_bits(SerialCommunicator(), Portable())


def test_other_rounding_is_found(monkeypatch):
    monkeypatch.setattr(np, "sqrt", lambda x: np.nextafter(x**0.5, 2))
    with pytest.raises(ForeignArithmeticError, match="does not round as IEEE 754 says"):
        check_machine()


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sum"])
def test_so_is_another_function(monkeypatch, name):
    """What no rule finds: the hash does."""
    own = getattr(Portable, name)

    def nearly(self, x, *args, out=None, **settings):
        return np.multiply(own(self, x, *args, **settings), 1.001, out=out)

    monkeypatch.setattr(Portable, name, nearly)
    with pytest.raises(ForeignArithmeticError, match="after 2 steps of a tiny network, expected"):
        check_machine()


FLUSHING = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex("0fae17c3"))  # ldmxcsr [rdi]; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
mode = ctypes.c_uint32(0x1F80 | {bits:#x})
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)(ctypes.addressof(mode))
from distnet.training.known_answer import check_machine
try:
    check_machine()
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="sets the mode of an x86-64 processor")
@pytest.mark.parametrize(
    ("bits", "found"),
    [
        (0, ""),
        (0x8000, "numbers below the smallest normal one become 0"),  # results: flush to zero
        (0x0040, "numbers below the smallest normal one become 0"),  # operands: denormals are zeros
        (0x6000, "an operation does not round as IEEE 754 says"),  # rounds towards zero
    ],
)
def test_the_mode_of_the_processor_is_found(bits, found):
    """As a library made with -ffast-math leaves it behind."""
    command = [sys.executable, "-c", FLUSHING.format(bits=bits)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found in ended.stdout
    assert bool(found) == bool(ended.stdout)
