"""What is NVIDIA's own: the kernels of kernels.cu, and work recorded as a CUDA graph.

At batches of a book's size a GPU waits for Python: a pass is some hundred small calls. A graph is
all of them in one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from distnet.base.arithmetic import DIGITS, LOWEST_EXPONENT, bit_length
from distnet.base.elementary import INVERSE_FACTORIALS, ODD_INVERSES
from distnet.device.cublas import Blas
from distnet.device.images import Windows
from distnet.device.kernels import cuts_of
from distnet.nn.losses import SoftmaxCrossEntropy

T = TypeVar("T")
THREADS, WARP = 256, 32  # of a block; those that run in step
BLOCKS = 1056  # eight for each of the 132 multiprocessors of an H100: more would only wait
MOST_RUNS = 65535  # CUDA's limit of a grid's second axis
MOST_PARTS = 264  # of which a warp finds the largest
ROWS = 128  # that a block adds up, where sums are cut
TEMPLATES = (
    *("windows", "folded", "max_pool", "max_unpool", "relu_backward", "largest", "to_grid"),
    *("sum_of_units", "from_units", "cross_entropy", "sum_by_word"),
)
SUMS = ("sum_rows<float, float>", "sum_rows<float, double>", "sum_rows<double, double>")
C_TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
BYTE = "unsigned char"
# What of kernels.cu is called, and how it is compiled: no two operations become one.
NAMES = (
    *(f"{name}<{each}>" for name in TEMPLATES for each in C_TYPES.values()),
    *(f"gather<{each}>" for each in (*C_TYPES.values(), BYTE)),
    *SUMS,
    *("units", "join_largest"),
)
OPTIONS = ("--std=c++17", "--fmad=false")


class CudaKernels(Blas):
    """The kernels of kernels.cu: the bits of the array functions, in one pass over memory each."""

    @functools.cached_property
    def _module(self) -> Any:
        """Compiled when it is first asked for; CuPy keeps it in a cache on disk."""
        return self.xp.RawModule(code=source(), options=OPTIONS, name_expressions=NAMES)

    def load(self) -> None:
        """Finds NVIDIA's libraries, and compiles; raises ImportError, OSError or RuntimeError if it
        cannot, MemoryError if there is no room.

        Otherwise the first pass would.
        """
        try:
            self._function("units")
            self._ready()
            _ = self.xp.zeros(1) + 1  # CuPy's own kernels need NVIDIA's headers as well
        except self.xp.cuda.compiler.CompileException as error:
            raise RuntimeError(str(error)) from None

    def unit(self, x: Any, bits: int) -> Any:
        x = self.xp.ascontiguousarray(x)
        groups, parts = len(x), self._largest_parts(x)
        result = self.xp.empty((groups, *(1,) * (x.ndim - 1)))
        how = (parts.shape[1], bits, LOWEST_EXPONENT)
        self._launch("units", (), (groups,), parts, result, *how, threads=WARP)
        return result

    def to_grid(self, x: Any, unit: Any) -> Any:
        x, xp = self.xp.ascontiguousarray(x), self.xp
        runs = unit.size if len(unit) == len(x) and unit.ndim == x.ndim else 1
        if unit.size > runs:  # a bias on the grids of several micro-batches
            runs, between = unit.size, (1,) * (unit.ndim - 1 - x.ndim)
            x = xp.ascontiguousarray(xp.broadcast_to(x, (runs, *between, *x.shape)))
        out, size = xp.empty(x.shape), np.int64(x.size // runs)
        unit = xp.ascontiguousarray(unit)
        self._launch("to_grid", (x,), self._runs(size, runs), x, unit, out, size, runs)
        return out

    def relu_backward(self, dy: Any, y: Any) -> Any:
        dy, y = (self.xp.ascontiguousarray(each) for each in (dy, y))
        out, size = self.xp.empty_like(dy), np.int64(dy.size)
        self._launch("relu_backward", (dy,), self._runs(size, 1), dy, y, out, size)
        return out

    def unroll(self, x: Any, windows: Windows) -> Any:
        x, w = self.xp.ascontiguousarray(x), windows
        g, n = x.shape[:2]
        size = math.prod(w.kernel) * w.per_group
        out = self.xp.empty((g, w.groups, n * math.prod(w.counts), size), x.dtype)
        self._launch("windows", (x,), (g * n * w.counts[0],), x, out, geometry(w, n))
        return out

    def fold(self, rows: Any, windows: Windows, n: int) -> Any:
        rows, w = self.xp.ascontiguousarray(rows), windows
        out = self.xp.empty((len(rows), n, *w.size, w.groups * w.per_group), rows.dtype)
        self._launch("folded", (rows,), (len(rows) * n * w.size[0],), rows, out, geometry(w, n))
        return out

    def max_pool(self, x: Any, windows: Windows, first: Any) -> tuple[Any, Any]:
        x, w, xp = self.xp.ascontiguousarray(x), windows, self.xp
        g, n = x.shape[:2]
        shape = (g, n, *w.counts, x.shape[-1])
        y, chosen = xp.empty(shape, x.dtype), xp.empty(shape, np.int32)
        lowest = x.dtype.type(-np.inf)
        rows = (g * n * w.counts[0],)
        self._launch("max_pool", (x,), rows, x, first, y, chosen, geometry(w, n), lowest)
        return y, chosen

    def max_unpool(self, dy: Any, windows: Windows, chosen: Any) -> Any:
        dy, w = self.xp.ascontiguousarray(dy), windows
        g, n = dy.shape[:2]
        out = self.xp.empty((g, n, *w.size, dy.shape[-1]), dy.dtype)
        self._launch("max_unpool", (dy,), (g * n * w.size[0],), dy, chosen, out, geometry(w, n))
        return out

    def sum_of_units(self, x: Any, scale: float) -> tuple[Any, Any]:
        x = self.xp.ascontiguousarray(x)
        groups, size = x.shape
        parts, largest = self._largest_parts(x), self.xp.empty(groups)
        self._launch("join_largest", (), (groups,), parts, largest, parts.shape[1], threads=WARP)
        out = self.xp.empty(size, np.int64)
        blocks = (-(-size // THREADS),)
        self._launch("sum_of_units", (x,), blocks, x, out, np.int64(size), groups, float(scale))
        return out, largest

    def from_units(self, units: Any, scale: float, out: Any) -> None:
        unit, size = out.dtype.type(1 / scale), np.int64(out.size)
        self._launch("from_units", (out,), self._runs(size, 1), units, out, size, unit)

    def cross_entropy(
        self, x: Any, labels: Any, weights: Any, divisor: Any, loss: SoftmaxCrossEntropy
    ) -> tuple[Any, Any]:
        x, xp = self.xp.ascontiguousarray(x), self.xp
        g, n, k = x.shape
        dx, sums = xp.empty_like(x), xp.empty((g, 2))
        how = np.zeros(1, LOSS)
        how["n"], how["classes"], how["smoothing"] = n, k, loss.smoothing
        how["bits_of_classes"], how["bits_of_rows"] = (DIGITS - bit_length(each) for each in (k, n))
        how["lowest"], how["rounds"] = LOWEST_EXPONENT, loss.arithmetic.rounds
        threads = min(1024, 1 << max(5, (n - 1).bit_length()))
        of_classes = np.uint64(0) if weights is None else weights  # no pointer
        arguments = (x, labels, of_classes, divisor, dx, sums, how)
        self._launch("cross_entropy", (x,), (g,), *arguments, threads=threads)
        return dx, sums

    def _largest_parts(self, x: Any) -> Any:
        """The largest magnitudes of parts of each micro-batch, `(G, parts)`; `x` is contiguous."""
        groups, size = len(x), np.int64(x[0].size)
        blocks = min(MOST_PARTS, self._runs(size, groups)[0]), groups
        parts = self.xp.empty(blocks[::-1])
        self._launch("largest", (x,), blocks, x, parts, size)
        return parts

    def _runs(self, size: int | np.int64, runs: int) -> tuple[int, int]:
        """Blocks for each of several runs of `size` numbers."""
        return int(max(1, min(-(-int(size) // THREADS), -(-BLOCKS // runs)))), runs

    def sum_rows(self, x: Any, dtype: Any = None) -> Any:
        x = self.xp.ascontiguousarray(x)
        g, p, c = x.shape
        if g > MOST_RUNS:  # groups of channels, of many micro-batches
            parts = (x[i : i + MOST_RUNS] for i in range(0, g, MOST_RUNS))
            return self.concatenate([self.sum_rows(part, dtype) for part in parts], 0)
        dtype = np.dtype(dtype or x.dtype)
        cuts = cuts_of(p, max(ROWS, -(-p * g // MOST_RUNS)))
        width = min(THREADS, 1 << (c - 1).bit_length())
        for rows, blocks in ((p // cuts, g * cuts), (cuts, g)):
            out = self.xp.empty((blocks, c), dtype)
            grid, types = (-(-c // width), blocks), (x, out)
            if rows == 1 and x.dtype == dtype:
                return x.reshape(g, c)
            self._launch("sum_rows", types, grid, x, out, rows, c, width)
            x = out
        return x

    def gather(self, pictures: Any, places: Any) -> Any:
        (g, n, _), (_, c, h, w) = places.shape, pictures.shape
        out = self.xp.empty((g, n, h, w, c), pictures.dtype)
        self._launch("gather", (pictures,), (g * n,), pictures, places, out, c, h, w)
        return out

    def sum_by_word(self, x: Any, words: Any, num_words: int) -> Any:
        x, words = (self.xp.ascontiguousarray(each) for each in (x, words))
        g, p, c = x.shape
        out = self.xp.empty((g, num_words, c), x.dtype)
        self._launch("sum_by_word", (x,), (num_words, g), x, words, out, p, c)
        return out

    def _launch(
        self,
        name: str,
        like: Any,
        blocks: tuple[int, ...],
        *arguments: Any,
        threads: int = THREADS,
    ) -> None:
        """like: arrays whose types are the template's arguments."""
        types = ", ".join(C_TYPES.get(each.dtype, BYTE) for each in like)
        whole = (np.int32(each) if type(each) is int else each for each in arguments)
        if all(blocks):
            name = f"{name}<{types}>" if types else name
            self._function(name)(blocks, (threads,), tuple(whole))

    @functools.cache  # noqa: B019  lives as long as the device
    def _function(self, name: str) -> Any:
        return self._module.get_function(name)


DIVISOR = np.dtype([("by", np.uint32), ("magic", np.uint32), ("shift", np.uint32)])
GEOMETRY = np.dtype(
    [
        *((name, np.int32) for name in ("n", "h", "w", "oh", "ow", "kh", "kw", "top", "left")),
        *((name, np.int32) for name in ("lower", "further", "groups", "channels")),
        *((name, DIVISOR) for name in ("down", "right", "per_group", "per_row", "per_element")),
        *((name, DIVISOR) for name in ("by_channels",)),
    ]
)
LOSS = np.dtype(
    [
        *((name, np.int32) for name in ("n", "classes", "bits_of_classes", "bits_of_rows")),
        *((name, np.int32) for name in ("lowest", "rounds")),
        ("smoothing", np.float64),
    ]
)


@functools.lru_cache(maxsize=1024)
def geometry(w: Windows, n: int) -> Any:
    """The struct of that name in kernels.cu: CuPy hands over an array of one by its value."""
    channels = w.groups * w.per_group
    sizes = (pair for pair in (w.size, w.counts, w.kernel, w.pad, w.dilation))
    divisors = (*w.stride, w.per_group, w.kernel[1], math.prod(w.kernel) * w.per_group, channels)
    values = (n, *(each for pair in sizes for each in pair), w.groups, channels)
    return np.array([(*values, *map(divisor, divisors))], GEOMETRY)


def divisor(by: int) -> tuple[int, int, int]:
    """The struct Divisor."""
    shift = (by - 1).bit_length()
    return by, (((1 << shift) - by) << 32) // by + 1, shift


def source() -> str:
    """kernels.cu, with the constants of `base.elementary`, to the last bit."""
    text = Path(__file__).with_name("kernels.cu").read_text()
    for name, values in (
        ("INVERSE_FACTORIALS", INVERSE_FACTORIALS),
        ("ODD_INVERSES", ODD_INVERSES),
    ):
        text = text.replace(name, ", ".join(map(repr, values)))
    return text


class Recorder:
    """Records work as CUDA graphs, on a stream of its own that waits for all others."""

    def __init__(self, xp: Any) -> None:
        self._xp, self._cuda = xp, xp.cuda
        self._stream: Any = None
        self._is_recording = False

    def record(self, run: Callable[[], T], repeatable: bool) -> Callable[[], T]:
        """See `Device.record`. Its arrays have a pool to themselves, for as long as it lives."""
        cuda = self._cuda
        if self._stream is None:
            self._stream = cuda.Stream()
        pool, stream = cuda.MemoryPool(self._allocate), self._stream
        with cuda.using_allocator(pool.malloc), stream:
            if repeatable:
                run()  # now there is memory in the pool
            stream.synchronize()
            stream.begin_capture()
            self._is_recording = True
            try:
                result = run()
            finally:
                self._is_recording = False
                graph = stream.end_capture()

        def again(held: Any = pool) -> T:
            graph.launch(stream)
            return result

        return again

    def _allocate(self, size: int) -> Any:
        """New memory for a pool. One that gets none gives up what lies idle in it and asks again,
        which must not be while it is recorded: then the graph works in what lies idle.
        """
        try:
            return self._new(size)
        except self._cuda.runtime.CUDARuntimeError:
            self._xp.get_default_memory_pool().free_all_blocks()
            if not self._is_recording:
                raise
        try:
            return self._new(size)
        except self._cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(str(error)) from None

    def _new(self, size: int) -> Any:
        return self._cuda.MemoryPointer(self._cuda.Memory(size), 0)
