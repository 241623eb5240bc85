"""Products of matrices by NVIDIA's library cuBLAS.

CuPy refuses to call it while a graph is recorded, so it is called here, by its C interface, with
memory of its own to work in.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distnet.device.kernels import Kernels

WORKSPACE_BYTES = 32 << 20  # what NVIDIA recommends for Hopper


class Blas(Kernels):
    """The array functions, but for products, which are cuBLAS's: float64 or float32.

    The library sees columns where there are rows: to it A is its transpose, and A B is B' A'.
    """

    @functools.cached_property
    def _library(self) -> ctypes.CDLL:
        self.xp.cuda.device.get_cublas_handle()  # loads it
        return ctypes.CDLL(loaded("libcublas.so"))

    @functools.cached_property
    def _handle(self) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._check(self._library.cublasCreate_v2(ctypes.byref(handle)))
        self._workspace = self.xp.empty(WORKSPACE_BYTES, np.uint8)
        return handle

    def matmul(self, a: Any, b: Any) -> Any:
        """As numpy.matmul, in a new array."""
        *first, m, k = a.shape
        n = b.shape[-1]
        if b.ndim == 2 or (math.prod(b.shape[:-2]) == 1 and a.ndim == b.ndim + 1):
            rows = self.xp.ascontiguousarray(a).reshape(1, -1, k)
            return self._batched(rows, b.reshape(1, k, n)).reshape(*first, m, n)
        if a.ndim == b.ndim + 1:  # groups of a convolution: of each micro-batch, all of them
            return self.concatenate([self.matmul(each, b)[None] for each in a], 0)
        return self._batched(_merged(a), _merged(b)).reshape(*first, m, n)

    def _batched(self, a: Any, b: Any) -> Any:
        """`(B, M, K)` and `(B, K, N)`."""
        count, m, k = a.shape
        n = b.shape[2]
        out = self.xp.empty((count, m, n), a.dtype)
        if out.size and k:
            a, a_turned, a_step = self._operand(a)
            b, b_turned, b_step = self._operand(b)
            real = {4: ctypes.c_float, 8: ctypes.c_double}[a.dtype.itemsize]
            one, zero = ctypes.byref(real(1)), ctypes.byref(real(0))
            self._multiply(a.dtype)(
                *(self._ready(), b_turned, a_turned, n, m, k, one),
                *(_pointer(b), b_step, _stride(b), _pointer(a), a_step, _stride(a), zero),
                *(_pointer(out), n, ctypes.c_longlong(m * n), count),
            )
        else:
            out.fill(0)
        return out

    def _multiply(self, dtype: Any) -> Callable[..., None]:
        name = {4: "cublasSgemmStridedBatched", 8: "cublasDgemmStridedBatched"}[dtype.itemsize]
        call = getattr(self._library, name)
        return lambda *arguments: self._check(call(*arguments))

    def _ready(self) -> ctypes.c_void_p:
        """The handle, which works on the stream that CuPy does, in memory of our own."""
        handle = self._handle
        stream = ctypes.c_void_p(self.xp.cuda.get_current_stream().ptr)
        self._check(self._library.cublasSetStream_v2(handle, stream))
        size = ctypes.c_size_t(WORKSPACE_BYTES)
        self._check(self._library.cublasSetWorkspace_v2(handle, _pointer(self._workspace), size))
        return handle

    def _operand(self, x: Any) -> tuple[Any, int, int]:
        """An array that can be handed over, whether it is turned, and its step between rows."""
        _, rows, columns = x.shape
        down, right = (each // x.itemsize for each in x.strides[1:])
        if (right == 1 or columns == 1) and (rows == 1 or down >= columns):
            return x, 0, down if rows > 1 else columns
        if (down == 1 or rows == 1) and (columns == 1 or right >= rows):
            return x, 1, right if columns > 1 else rows
        return self.xp.ascontiguousarray(x), 0, columns

    @staticmethod
    def _check(status: int) -> None:
        if status:
            raise RuntimeError(f"cuBLAS: found status {status}, expected 0")


def loaded(library: str) -> str:
    """Where a library is from that this process has loaded; its path may hold blanks."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = (line.split(maxsplit=5)[5:] for line in lines)
    return next(path for (path,) in filter(None, paths) if library in path)


def _merged(x: Any) -> Any:
    """`(G, R, M, K)` as `(G R, M, K)`: a view, also of turned matrices one after another."""
    return x if x.ndim == 3 else x.reshape(-1, *x.shape[-2:])


def _pointer(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.data.ptr)


def _stride(x: Any) -> ctypes.c_longlong:
    return ctypes.c_longlong(x.strides[0] // x.itemsize if len(x) > 1 else 0)
