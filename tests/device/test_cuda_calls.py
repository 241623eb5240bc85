"""What is handed to CUDA, tried without a GPU: products, structs, and work that is recorded."""

import ctypes
import importlib
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from simulated import SimulatedKernels
from strict import Strict

from distnet.device import cublas, cuda
from distnet.device.cuda import (
    GEOMETRY,
    LOSS,
    NAMES,
    OPTIONS,
    CudaKernels,
    divisor,
    geometry,
    source,
)
from distnet.device.images import Windows
from distnet.device.recording import MOST, Recorded
from distnet.nn.losses import SoftmaxCrossEntropy


@pytest.fixture
def blas(monkeypatch):
    monkeypatch.setattr(cublas, "_pointer", lambda array: ctypes.c_void_p(array.ctypes.data))
    return SimulatedKernels(np)


def numbers(*shape):
    return np.random.default_rng(len(shape)).integers(-9, 9, shape).astype(np.float64)


def turned(x):
    """The same matrices with their columns in memory one after another."""
    return np.ascontiguousarray(np.swapaxes(x, -1, -2)).swapaxes(-1, -2)


CASES = {
    "vectors by a matrix": ((2, 5, 7), (7, 3), 1),
    "one group of filters": ((3, 1, 20, 9), (1, 9, 4), 1),
    "groups of filters": ((3, 2, 20, 9), (2, 9, 4), 3),
    "filter gradients": ((3, 2, 9, 20), (3, 2, 20, 4), 1),
    "queries and keys": ((3, 2, 4, 5), (3, 2, 5, 6), 1),
    "one row": ((3, 1, 20), (3, 20, 4), 1),
    "one column": ((3, 20, 6), (3, 6, 1), 1),
    "one term": ((3, 20, 1), (3, 1, 4), 1),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("turn", ["", "a", "b", "ab"])
def test_products_are_those_of_numpy(blas, case, turn):
    shape_a, shape_b, num_calls = CASES[case]
    a, b = numbers(*shape_a), numbers(*shape_b)
    a, b = turned(a) if "a" in turn else a, turned(b) if "b" in turn else b
    np.testing.assert_array_equal(blas.matmul(a, b), np.matmul(a, b))
    assert blas._library.num_calls == num_calls


def test_of_nothing_the_product_is_zeros(blas):
    np.testing.assert_array_equal(
        blas.matmul(np.ones((2, 3, 0)), np.ones((2, 0, 4))), np.zeros((2, 3, 4))
    )


def test_divisions_are_multiplications():
    rng = np.random.default_rng(0)
    values = np.concatenate([[0, 1, 2**31 - 1], rng.integers(0, 2**31, 500)]).astype(np.uint64)
    for by in [*range(1, 200), *map(int, rng.integers(200, 2**20, 200))]:
        by, magic, shift = divisor(by)
        found = (((values * np.uint64(magic)) >> np.uint64(32)) + values) >> np.uint64(shift)
        np.testing.assert_array_equal(found, values // np.uint64(by))
        assert magic < 2**32


@pytest.mark.parametrize(("name", "dtype"), [("Geometry", GEOMETRY), ("Loss", LOSS)])
def test_structs_have_the_fields_of_the_source(name, dtype):
    (body,) = re.findall(rf"struct {name} {{(.*?)}};", re.sub("//.*", "", source()), re.DOTALL)
    named = re.sub(r"\b(int|double|Divisor)\b", "", body)
    assert tuple(re.findall(r"\w+", named)) == dtype.names


@pytest.mark.parametrize("shape", [(1, 9_600_000, 1), (4, 40_000, 3), (2, 7, 300), (70_000, 2, 3)])
def test_a_grid_is_no_larger_than_cuda_has_them(monkeypatch, shape):
    grids = []
    monkeypatch.setattr(
        CudaKernels, "_launch", lambda self, name, like, grid, *more: grids.append(grid)
    )
    assert CudaKernels(np).sum_rows(np.zeros(shape, np.float32)).shape == (shape[0], shape[2])
    assert all(down <= 65535 for _, down in grids)


def test_a_block_is_no_larger_than_its_kernel_is_compiled_for(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        CudaKernels, "_launch", lambda self, *arguments, threads: sizes.append(threads)
    )
    logits, labels = np.zeros((2, 5000, 3)), np.zeros((2, 5000), np.int32)
    CudaKernels(np).cross_entropy(logits, labels, None, np.ones(1), SoftmaxCrossEntropy())
    (most,) = re.findall(r"__launch_bounds__.(\w+). cross_entropy", source())
    assert sizes == [int(most)]


def test_libraries_are_found_where_a_path_holds_blanks(monkeypatch):
    lines = ["7f00-7f10 r-xp 00000000 08:01 12    /home/a b/libcublasLt.so.13", "7f10-7f20 rw-p 0"]
    lines.append("7f20-7f30 r-xp 00000000 08:01 13    /home/a b/libcublas.so.13")
    monkeypatch.setattr(Path, "read_text", lambda path: "\n".join(lines))
    assert cublas.loaded("libcublas.so") == "/home/a b/libcublas.so.13"


class OutOfMemoryError(RuntimeError):
    """In the place of CuPy's error of the runtime."""


class FullDevice:
    """CuPy on a device that has memory only when what lies idle is given up."""

    def __init__(self):
        self.has_room, self.idle = False, True
        self.cuda = SimpleNamespace(
            Memory=self._allocate,
            MemoryPointer=lambda memory, offset: memory,
            runtime=SimpleNamespace(CUDARuntimeError=OutOfMemoryError),
        )

    def _allocate(self, size):
        if not self.has_room:
            raise OutOfMemoryError("out of memory")
        return size

    def get_default_memory_pool(self):
        return SimpleNamespace(free_all_blocks=self._give_up)

    def _give_up(self):
        self.has_room, self.idle = self.idle, False


def test_memory_that_lies_idle_is_given_up_but_not_that_of_a_recording():
    """A pool that is told that there is none gives up its own, and asks again."""
    recorder = cuda.Recorder(FullDevice())
    with pytest.raises(OutOfMemoryError):
        recorder._allocate(9)
    assert recorder._allocate(9) == 9
    recorder = cuda.Recorder(FullDevice())
    recorder._is_recording = True
    assert recorder._allocate(9) == 9
    recorder._xp.has_room = False
    with pytest.raises(MemoryError, match="out of memory"):
        recorder._allocate(9)


def test_a_geometry_says_where_windows_lie():
    windows = Windows((5, 6), (9, 10), (3, 4), (3, 2), (2, 1), (1, 2), (1, 2), 2, 8)
    found = geometry(windows, 7)[0]
    assert [int(found[name]) for name in ("n", "h", "w", "oh", "ow", "kh", "kw")] == [
        7,
        5,
        6,
        3,
        4,
        3,
        2,
    ]
    assert [int(found[name]) for name in ("top", "left", "lower", "further")] == [1, 2, 1, 2]
    by = {name: int(found[name]["by"]) for name, (kind, _) in GEOMETRY.fields.items() if kind.names}
    assert list(by.values()) == [2, 1, 8, 2, 48, 16]


def test_the_source_is_part_of_the_package():
    assert "INVERSE_FACTORIALS" not in source()
    assert Path(cuda.__file__).with_name("kernels.cu").exists()


def test_the_source_compiles():
    """By NVIDIA's compiler, which needs no GPU."""
    pytest.importorskip("cupy", reason="CuPy is not installed: see the extra `cuda`")
    nvrtc = importlib.import_module("cupy_backends.cuda.libs.nvrtc")
    program = nvrtc.createProgram(source(), "kernels.cu", (), ())
    for name in NAMES:
        nvrtc.addNameExpression(program, name)
    nvrtc.compileProgram(program, [*OPTIONS, "-arch=sm_90"])
    assert all(name.split("<")[0] in nvrtc.getLoweredName(program, name) for name in NAMES)


def test_every_kernel_of_the_source_is_named():
    kernels = re.findall(r"__global__ void (?:__launch_bounds__.\w+. )?(\w+)\(", source())
    assert sorted(kernels) == sorted({name.split("<")[0] for name in NAMES})


class Recorder(Strict):
    """Counts what is recorded, and lets nothing come or go meanwhile."""

    def __init__(self):
        super().__init__()
        self.num_recorded, self.is_recording = 0, False

    def record(self, run, *, repeatable=True):
        self.num_recorded += 1

        def again():
            self.is_recording = True
            try:
                return run()
            finally:
                self.is_recording = False

        return again

    def to_device(self, array):
        assert not self.is_recording
        return super().to_device(array)

    def to_host(self, array):
        assert not self.is_recording
        return super().to_host(array)


def test_what_occurs_twice_is_recorded_for_each_shape():
    device = Recorder()
    double = Recorded(device, lambda x: x + x)
    for size, num_recorded in ((3, 0), (4, 0), (3, 1), (3, 1), (4, 2)):
        x = np.random.default_rng(size).uniform(size=size)
        np.testing.assert_array_equal(device.to_host(double(x)), 2 * x)
        assert device.num_recorded == num_recorded


def test_the_oldest_recordings_are_given_up():
    device = Recorder()
    double = Recorded(device, lambda x: x + x)
    for size in [*range(1, MOST + 2), 1, 1]:
        double(np.ones(size))
    assert len(double._known) == MOST
    assert device.num_recorded == 1


def test_what_is_of_the_host_does_not_come_in_while_recording():
    device = Recorder()
    wrong = Recorded(device, lambda x: x + device.to_device(np.ones(1)))
    wrong(np.ones(1))
    with pytest.raises(AssertionError):
        wrong(np.ones(1))
