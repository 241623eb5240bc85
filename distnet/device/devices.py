"""Where arrays are computed with: a GPU by CuPy, or, to try the same code without one, NumPy.

CuPy has NumPy's names (Okuta et al. 2017, "CuPy: a NumPy-compatible library for NVIDIA GPU
calculations"), so what is here computes with either. It is imported when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

from distnet.base.arrays import Array
from distnet.device.cuda import CudaKernels, Recorder
from distnet.device.kernels import Kernels

T = TypeVar("T")
INSTALL = "pip install 'distnet-mpi[cuda]' (CuPy 14 or later) on a machine with an NVIDIA driver"


class DeviceError(ValueError):
    """There is no such device here, or something on it cannot be had: one line."""


class Device:
    """An array module, and the way of arrays from the host to it and back.

    xp: the module; kernels: what it computes with. Both ways are copies that have arrived when the
    call returns, so what is on the host may be read, written, or given to MPI at once: nobody needs
    to synchronise.
    """

    name = "numpy"
    xp: Any = np

    def __init__(self) -> None:
        self.kernels = Kernels(self.xp)

    def __repr__(self) -> str:
        return f"Device({self.name})"

    def __reduce__(self) -> tuple[Callable[..., Device], tuple[str | int, ...]]:
        """A copy or a pickle of a network names its device."""
        return device_named, (self.name,)

    def to_device(self, array: Array) -> Any:
        """A copy on the device, contiguous."""
        return np.array(array, order="C")

    def fill(self, array: Any, values: Array) -> None:
        """Copies `values` of the host into an array on the device, of the same shape and type."""
        array[...] = self.to_device(values)

    def to_host(self, array: Any) -> Array:
        """A copy on the host, when all that was begun before it is done."""
        return np.array(array)

    def record(self, run: Callable[[], T], *, repeatable: bool = True) -> Callable[[], T]:
        """What does again what `run` does, with the same arrays, and returns what it returned.

        `run` only begins work on the device, and always the same; it has run before. Here it is
        `run` itself. repeatable: whether it may do its work once more, for nothing.
        """
        return run

    def wait(self) -> None:
        """Until all that was begun is done."""

    def describe(self) -> dict[str, str]:
        """What decides which bits a product of float32 numbers has there."""
        return {"device": "numpy"}


class Cuda(Device):
    """The GPU of that number, counted from 0; raises DeviceError unless CuPy and it are here."""

    name = "cuda"

    def __init__(self, number: int = 0) -> None:
        self.xp = self._cupy()
        runtime = self.xp.cuda.runtime
        try:
            count = runtime.getDeviceCount()
        except runtime.CUDARuntimeError as error:
            raise DeviceError(
                f"device cuda: found no GPU ({_reason(error)}), expected one"
            ) from None
        if not count:
            raise DeviceError("device cuda: found no GPU, expected one")
        self.number = number % count
        self.kernels = CudaKernels(self.xp)
        self._use()
        try:
            self.kernels.load()
        except (ImportError, OSError, RuntimeError) as error:
            raise DeviceError(
                f"device cuda: found no CUDA for CuPy ({_reason(error)}), expected "
                "NVIDIA's libraries: pip install 'cupy-cuda13x[ctk]' (or 12x, as your CuPy is)"
            ) from None
        except MemoryError as error:
            raise self._busy(error) from None
        self._recorder = Recorder(self.xp)

    def __reduce__(self) -> tuple[Callable[..., Device], tuple[str | int, ...]]:
        return device_named, (self.name, self.number)

    def _use(self) -> None:
        """Work goes there that is begun from now on. Every thread has to say so, and work begins
        with what the host brings over.
        """
        try:
            self.xp.cuda.Device(self.number).use()
        except self.xp.cuda.runtime.CUDARuntimeError as error:
            raise self._busy(error) from None

    def _busy(self, error: Exception) -> DeviceError:
        """The error for a GPU that is there, but that others have."""
        return DeviceError(
            f"device cuda: found GPU {self.number} in use ({_reason(error)}), expected one with "
            "free memory that other processes may share"
        )

    @staticmethod
    def _cupy() -> Any:
        try:
            return import_module("cupy")
        except ImportError as error:
            raise DeviceError(
                f"device cuda: found no CuPy ({_reason(error)}), expected it: {INSTALL}"
            ) from None

    def to_device(self, array: Array) -> Any:
        self._use()
        return self.xp.array(np.ascontiguousarray(array))

    def fill(self, array: Any, values: Array) -> None:
        self._use()
        array.set(np.ascontiguousarray(values), stream=self.xp.cuda.get_current_stream())

    def to_host(self, array: Any) -> Array:
        return self.xp.asnumpy(array)

    def record(self, run: Callable[[], T], *, repeatable: bool = True) -> Callable[[], T]:
        return self._recorder.record(run, repeatable)

    def wait(self) -> None:
        self.xp.cuda.runtime.deviceSynchronize()

    def describe(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self.number)
        return {
            "device": properties["name"].decode(),
            "cupy": self.xp.__version__,
            "cuda": str(runtime.runtimeGetVersion()),
        }


def _reason(error: Exception) -> str:
    """What it says, on one line of bearable length."""
    return f"{' '.join(str(error).split()):.200}"


CPU, AUTO = "cpu", "auto"
DEVICES: dict[str, Callable[[int], Device]] = {"cuda": Cuda, "numpy": lambda number: Device()}


def device_named(name: str, number: int = 0) -> Device:
    """The device of that name, one of DEVICES, and number; raises DeviceError."""
    if name not in DEVICES:
        raise DeviceError(f"device: found {name!r:.60}, expected one of {', '.join(DEVICES)}")
    return DEVICES[name](number)


def choose_device(name: str, number: int = 0) -> Device | None:
    """What an option means: None, the CPU, for "cpu"; for "auto" a GPU where there is one.

    number: of the GPU, modulo how many there are, such as the rank's number on its host. Raises
    DeviceError.
    """
    if name == CPU:
        return None
    if name != AUTO:
        return device_named(name, number)
    try:
        return device_named("cuda", number)
    except DeviceError:
        return None
