"""A GPU that is simulated by the processor: kernels.cu, compiled for it, in CuPy's place.

Whatever `distnet.device` hands to CUDA is computed as the source says, blocks and threads one after
another, in memory that is as strict as a GPU's; only matrix products are NumPy's. See
`cuda_on_cpu.h`.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.lib.stride_tricks import as_strided
from strict import Strict, StrictArray, StrictModule, Tape, noted, tapes

from distnet.device.cuda import NAMES, CudaKernels, source

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
# As the device's compiler: no two operations become one. -Wno: of the device's own words.
FLAGS = ["-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"]
MARGIN = 4096  # bytes before and behind what a kernel is handed, which it must leave alone
UNTOUCHED = 0xFF  # as floats NaN
PROBLEMS = {
    1: "not all threads of a block wait at the same place",
    2: "a thread waits for others in a kernel whose first block did not",
}


def missing() -> str:
    """Why there is none here; empty if there is."""
    return "" if shutil.which("g++") else "found no g++ to compile kernels.cu with"


@functools.cache
def library() -> ctypes.CDLL:
    """kernels.cu with a function `launch_I` for each of NAMES."""
    launches = [f"LAUNCHES(launch_{i}, {name})" for i, name in enumerate(NAMES)]
    with tempfile.TemporaryDirectory() as folder:
        program, built = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        program.write_text("\n".join([f'#include "{HEADER}"', source(), *launches]))
        command = ["g++", *FLAGS, "-o", str(built), str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return ctypes.CDLL(str(built))


class Memory:
    """Copies of arrays, for one launch, with margins that nobody may write to."""

    def __init__(self) -> None:
        self._copies: dict[int, tuple[StrictArray, np.ndarray]] = {}

    def address(self, array: StrictArray) -> int:
        """Of its copy: the same for the same array."""
        start = array.ctypes.data
        if start not in self._copies:
            copy = np.full(array.nbytes + 2 * MARGIN, UNTOUCHED, np.uint8)
            copy[MARGIN:-MARGIN] = _bytes(array)
            self._copies[start] = array, copy
        return self._copies[start][1].ctypes.data + MARGIN

    def take_back(self) -> None:
        for array, copy in self._copies.values():
            margins = copy[:MARGIN], copy[-MARGIN:]
            assert all((each == UNTOUCHED).all() for each in margins), "written beside an array"
            if array.flags.writeable:
                _bytes(array)[...] = copy[MARGIN:-MARGIN]
            else:
                assert (_bytes(array) == copy[MARGIN:-MARGIN]).all(), "written to what is only read"


def _bytes(array: StrictArray) -> np.ndarray:
    assert array.flags.c_contiguous, "a kernel sees memory, and no strides"
    return array.view(np.ndarray).reshape(-1).view(np.uint8)


class Function:
    """A kernel, called as CuPy's are."""

    def __init__(self, name: str) -> None:
        self.name, self._launch = name, getattr(library(), f"launch_{NAMES.index(name)}")

    def __call__(self, blocks: tuple[int, ...], threads: tuple[int], arguments: tuple) -> None:
        noted(lambda: self._run(blocks, threads, arguments))

    def _run(self, blocks: tuple[int, ...], threads: tuple[int], arguments: tuple) -> None:
        memory, kept = Memory(), []
        for each in arguments:
            if isinstance(each, StrictArray):
                value = ctypes.c_void_p(memory.address(each))
                kept.append((value, ctypes.addressof(value)))
            else:  # by its value: a number, or an array of one struct
                value = np.atleast_1d(np.asarray(each))
                assert value.size == 1, f"an array of the host is handed to {self.name}"
                kept.append((value, value.ctypes.data))
        columns, rows = (*blocks, 1)[:2]
        assert columns < 1 << 31, "no grid of CUDA's is so long"
        assert rows < 1 << 16, "no grid of CUDA's is so high"
        given = (ctypes.c_void_p * len(kept))(*(address for _, address in kept))
        problem = self._launch(given, columns, rows, *threads)
        assert not problem, f"{self.name}: {PROBLEMS[problem]}"
        memory.take_back()


class Cublas:
    """Computes with the memory that it is told of, in columns, as the library's manual says."""

    def __init__(self) -> None:
        self.num_calls = 0

    def cublasDgemmStridedBatched(self, *arguments):  # noqa: N802  the library's name
        return self._multiply(ctypes.c_double, *arguments)

    def cublasSgemmStridedBatched(self, *arguments):  # noqa: N802
        return self._multiply(ctypes.c_float, *arguments)

    def _multiply(
        self, real, handle, turn_a, turn_b, m, n, k, alpha, a, lda, step_a, b, ldb, step_b, *rest
    ):
        _beta, c, ldc, step_c, count = rest
        self.num_calls += 1
        sizes = ((turn_a, m, k, a, lda, step_a), (turn_b, k, n, b, ldb, step_b))
        first, second = (self._matrices(real, count, *each) for each in sizes)
        out = self._columns(real, count, m, n, c, ldc, step_c)
        out[...] = first @ second
        return 0

    def _matrices(self, real, count, turned, rows, columns, *where):
        shape = (columns, rows) if turned else (rows, columns)
        found = self._columns(real, count, *shape, *where)
        return found.transpose(0, 2, 1) if turned else found

    @staticmethod
    def _columns(real, count, rows, columns, pointer, leading, step):
        assert leading >= rows
        last = (count - 1) * step.value + (columns - 1) * leading + rows
        numbers = np.frombuffer((real * last).from_address(pointer.value), real)
        size = numbers.itemsize
        strides = (size * step.value, size, size * leading)
        return as_strided(numbers, (count, rows, columns), strides)


class SimulatedKernels(CudaKernels):
    """Those of CUDA, but for the library of products."""

    @functools.cached_property
    def _library(self) -> Cublas:
        return Cublas()

    def _ready(self) -> None:
        pass

    def _multiply(self, dtype):
        call = super()._multiply(dtype)
        return lambda *arguments: noted(lambda: call(*arguments))


class SimulatedModule(StrictModule):
    """What it has besides."""

    @staticmethod
    def RawModule(**settings):  # noqa: N802  CuPy's name
        assert (settings["code"], settings["name_expressions"]) == (source(), NAMES)
        return SimpleNamespace(get_function=Function)

    def empty(self, shape, dtype=np.float64):
        """Of numbers that show when they are used."""
        out = np.empty(shape, dtype).view(StrictArray)
        _bytes(out)[...] = UNTOUCHED
        if tapes:
            tapes[-1].held.append(out)
        return out

    def empty_like(self, array):
        return self.empty(array.shape, array.dtype)


class Simulated(Strict):
    """A GPU that is simulated."""

    name = "simulated"
    xp = SimulatedModule()

    def __init__(self) -> None:
        self.kernels = SimulatedKernels(self.xp)

    def __reduce__(self):
        return Simulated, ()

    def record(self, run, *, repeatable=True):
        """As a graph: what was noted, with the values that the host had then."""
        if repeatable:
            run()
        tape = Tape()
        tapes.append(tape)
        try:
            result = run()
        finally:
            tapes.pop()
        begun = []

        def again():
            if begun:  # the first time it was done while it was noted
                tape.repeat()
            begun.append(True)
            return result

        return again
