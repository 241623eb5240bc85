"""Whether ranks will compute the same bits: by their kernels, or by a computation of known result.

In float32 the bits depend on the kernels, so the fingerprints of all ranks have to agree. In
portable arithmetic they do not, if the machine keeps to IEEE 754 and its BLAS to float64: that is
tried, once in a process, in about ten milliseconds.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from distnet.base.arithmetic import Arithmetic, Portable
from distnet.base.arrays import Array
from distnet.base.keys import MicroBatch
from distnet.device import Device, compute_on
from distnet.nn import (
    BatchNorm,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Network,
    Residual,
    Sigmoid,
    Tanh,
)
from distnet.objectives import Classification
from distnet.optim import make_optimizer
from distnet.parallel import Communicator, agree, together
from distnet.training.fingerprint import (
    CODE_REMEDY,
    REMEDY,
    code_sha256,
    numerics_fingerprint,
)

# SHA-256 of the parameters of `tiny_network` after `NUM_STEPS` steps, on every machine.
KNOWN_SHA256 = "92c0a88c5ea74a5c909e62b7faeed23dcaacafe47c8e12aad6f4eeb758e31beb"
NUM_STEPS = 2


class ForeignArithmeticError(ValueError):
    """The machine computes otherwise than portable arithmetic needs it: one line that says how."""


def expect_same_bits(
    comm: Communicator, arithmetic: Arithmetic, device: Device | None = None
) -> None:
    """Raises AgreedError on all ranks unless they compute the same bits in an arithmetic, by the
    same code.

    device: on which this rank's layers compute; None: on the CPU.
    """
    if comm.size > 1:
        agree(comm, {"distnet's code": code_sha256()}, CODE_REMEDY)
    if arithmetic.rounds:
        together(comm, check_machine)
        together(comm, lambda: None if device is None else check_device(device))
    else:
        agree(comm, fingerprint_of(device), REMEDY)


def fingerprint_of(device: Device | None) -> dict[str, str]:
    """`numerics_fingerprint`, and what decides the bits on a device."""
    return numerics_fingerprint() | ({} if device is None else device.describe())


def check_device(device: Device) -> None:
    """Raises ForeignArithmeticError unless portable arithmetic gives the known bits there."""
    found = sha256_of_steps(device)
    if found != KNOWN_SHA256:
        raise ForeignArithmeticError(
            f"portable arithmetic on {device.describe()['device']}: found {found:.16} after "
            f"{NUM_STEPS} steps of a tiny network, expected {KNOWN_SHA256:.16}; use --device cpu, "
            "and please report the device and its CuPy"
        )


@cache
def check_machine() -> None:
    """Raises ForeignArithmeticError unless portable arithmetic gives the known bits here."""
    for what, holds in (
        ("numbers below the smallest normal one become 0", keeps_denormals()),
        ("an operation does not round as IEEE 754 says", rounds_to_nearest()),
        ("matrix products of float64 are not computed in float64", multiplies_exactly()),
    ):
        if not holds:
            raise ForeignArithmeticError(
                f"portable arithmetic: found that {what}, expected IEEE 754; look for a library "
                "that changes the mode of the processor (made with -ffast-math) or for settings "
                "of the BLAS"
            )
    found = sha256_of_steps()
    if found != KNOWN_SHA256:
        raise ForeignArithmeticError(
            f"portable arithmetic: found {found:.16} after {NUM_STEPS} steps of a tiny network, "
            f"expected {KNOWN_SHA256:.16}; please report this machine, its NumPy and its BLAS"
        )


def keeps_denormals() -> bool:
    """Whether numbers below the smallest normal one are kept: neither results nor operands go 0."""
    for kind, lowest in ((np.float32, -126), (np.float64, -1022)):
        small: Array = np.full(64, 2.0**lowest, kind)
        small *= 0.25
        if not (small > 0).all() or not (small * 4 == 2.0**lowest).all():
            return False
    return True


def rounds_to_nearest() -> bool:
    """Whether ties go to even, and roots and quotients are those that IEEE 754 names."""
    tiny = np.full(64, 2.0**-53)
    odd = np.full(64, 1 + 2.0**-52)
    # float64 has more than twice the bits of float32, so its roots and quotients, rounded again,
    # are those of float32 (Figueroa 1995). On 32-bit Arm every third root is not.
    short = np.arange(1, 257, dtype=np.float32)
    long = short.astype(np.float64)
    return bool(
        (1 + tiny == 1).all()
        and (odd + tiny == 1 + 2.0**-51).all()
        and (np.sqrt(np.full(64, 2.0)) == float.fromhex("0x1.6a09e667f3bcdp+0")).all()
        and (1 / np.full(64, 3.0) == float.fromhex("0x1.5555555555555p-2")).all()
        and (np.sqrt(short) == np.sqrt(long).astype(np.float32)).all()
        and (1 / short == (1 / long).astype(np.float32)).all()
    )


def multiplies_exactly() -> bool:
    """Whether BLAS returns exact sums of 53 bits, as integers do, in products small and large."""
    words = np.arange(1, 1 + 256 * 160, dtype=np.int64) * 2654435761 % 2**23 - 2**22
    for rows, depth, columns in ((3, 5, 2), (40, 256, 24), (96, 256, 64)):
        a, b = words[: rows * depth].reshape(rows, -1), words[-depth * columns :].reshape(depth, -1)
        if not np.array_equal(np.matmul(a.astype(np.float64), b.astype(np.float64)), a @ b):
            return False
    return True


def tiny_network() -> Network:
    """A network with a layer of each kind that rounds in a way of its own."""
    conv = [Conv2d(6, 3, pad=1, bias=False), BatchNorm(), Tanh()]
    layers = [Conv2d(6, 3, pad=1), MaxPool2d(2), Residual(conv), Sigmoid(), Dropout(0.25)]
    return Network([*layers, Linear(10)], (1, 8, 8), arithmetic=Portable())


def sha256_of_steps(device: Device | None = None) -> str:
    """The hash of its parameters after some steps, whose layers compute on a device or here."""
    network = tiny_network()
    if device is not None:
        compute_on(network, device)
    objective = Classification(network, label_smoothing=0.1)
    parameters = objective.parameters
    settings = {"arithmetic": parameters.arithmetic, "clip_norm": 1.0}
    optimizer = make_optimizer("adam", parameters.values.size, **settings)
    x, labels = _digits(20)
    for step in range(NUM_STEPS):
        objective.gradients(objective.as_input(x), labels, MicroBatch(step=step))
        grads = np.rint(parameters.grads * 2.0**40) * 2.0**-40  # as the sum over ranks has them
        optimizer.step(parameters.values, grads.astype(np.float32), lr=0.01, t=step + 1)
        parameters.update_statistics(parameters.batch_statistics.copy())
        parameters.refresh()
    state = np.concatenate([parameters.values, parameters.statistics])
    return hashlib.sha256(state.astype("<f8").tobytes()).hexdigest()


def _digits(count: int) -> tuple[Array, Array]:
    """Images of bytes, and labels, by whole numbers alone."""
    labels = np.arange(count) % 10
    pixels = np.arange(count * 64).reshape(count, 1, 8, 8) * 40503 // 7 % 251
    return (pixels * (1 + labels[:, None, None, None]) % 256).astype(np.uint8), labels
