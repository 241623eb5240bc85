"""A device that is NumPy and as strict as CuPy: its arrays never mix with the host's by accident.

What CuPy has is told by a list of names, since the tests run where CuPy is not; a test compares the
list with CuPy where that is installed.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from distnet.device import Device

# Of CuPy 14. Ufuncs are reached through NumPy as well, by its dispatch.
UFUNCS = {
    *("abs", "absolute", "add", "subtract", "multiply", "divide", "negative", "maximum", "minimum"),
    *("greater", "equal", "rint", "frexp", "ldexp", "sqrt", "square", "exp", "log", "tanh"),
    *("copysign", "less", "not_equal", "bitwise_and", "less_equal", "greater_equal"),
}
FUNCTIONS = {
    *("max", "sum", "matmul", "ascontiguousarray", "full", "zeros", "ones_like", "full_like"),
    *("where", "broadcast_to", "concatenate", "nan_to_num", "stack", "argmax", "arange", "empty"),
    *("empty_like",),
    *("zeros_like",),
    *("moveaxis", "any"),
}


class StrictArray(np.ndarray):
    """An array on the device. What CuPy refuses, it refuses."""

    @property
    def data(self):
        """Where it lies."""
        return SimpleNamespace(ptr=self.ctypes.data)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        known = ufunc.__name__ in UFUNCS | {"matmul"}
        if method == "reduce":  # what x.max() and x.sum() are made of
            known = ufunc in (np.maximum, np.add)
        if not known or method not in ("__call__", "reduce"):
            raise TypeError(f"CuPy does not get np.{ufunc.__name__}.{method}")
        return _strictly(getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        if function.__name__ not in FUNCTIONS:
            raise TypeError(f"CuPy does not get np.{function.__name__}")
        return _strictly(function, args, kwargs)

    def __getitem__(self, key):
        """A view also of one number, as CuPy has it."""
        key = _no_choice(key)
        key = key if isinstance(key, tuple) else (key,)
        key = key if any(each is Ellipsis for each in key) else (*key, Ellipsis)
        return noted(lambda: np.ndarray.__getitem__(self, key), self)

    def __setitem__(self, key, value):
        key = _no_choice(key)
        noted(lambda: np.ndarray.__setitem__(self, key, value))

    def astype(self, *args, **kwargs):
        return noted(lambda: np.ndarray.astype(self, *args, **kwargs), self)

    def reshape(self, *args, **kwargs):
        return noted(lambda: np.ndarray.reshape(self, *args, **kwargs), self)

    def ravel(self, *args, **kwargs):
        return noted(lambda: np.ndarray.ravel(self, *args, **kwargs), self)

    def copy(self, *args, **kwargs):
        return noted(lambda: np.ndarray.copy(self, *args, **kwargs), self)

    def fill(self, value):
        noted(lambda: np.ndarray.fill(self, value))

    def __float__(self):
        raise TypeError("the host looks at a number of the device, and waits for it")

    __bool__ = __int__ = __index__ = __float__


def _strictly(function, args, kwargs):
    """Calls it with the arrays of the device, and no others; what it returns lies there, too."""
    plain = [_plain(each) for each in args]
    named = {name: _plain(each) for name, each in kwargs.items()}
    of_device = [each for each in plain if isinstance(each, np.ndarray)]
    if named.get("out") is not None:
        of_device = []  # what it returns is not new, but is written
    return _own(noted(lambda: function(*plain, **named), *of_device))


class Tape:
    """Work on a device that is noted while it is done, to be done again with the same arrays.

    held: memory that is part of it, though nobody else may need it any more, as a graph's pool.
    """

    def __init__(self):
        self._work, self.held = [], []

    def note(self, call, result, inputs):
        arrays = _arrays(result)
        if any(_share_memory(one, other) for one in arrays for other in inputs):
            return  # another view of what is there
        self._work.append((call, arrays))

    def repeat(self):
        for call, arrays in self._work:
            for array, found in zip(arrays, _arrays(call()), strict=True):
                if not _share_memory(array, found):
                    array[...] = found


def _arrays(result):
    """What of it is an array, as those of the host."""
    results = result if isinstance(result, tuple) else (result,)
    return [each.view(np.ndarray) for each in results if isinstance(each, np.ndarray)]


def _share_memory(one, other):
    return np.may_share_memory(one.view(np.ndarray), other.view(np.ndarray))


tapes = []  # the last one is noted on


def noted(call, *inputs):
    """What `call` returns; it works on the device, and what is new among that lies there.

    inputs: arrays of which it may return a view.
    """
    held, tapes[:] = tapes[:], []  # what it calls itself is a part of it
    try:
        result = call()
    finally:
        tapes[:] = held
    if tapes:
        tapes[-1].note(call, result, inputs)
    return result


def _no_choice(key):
    """An index; TypeError for one that chooses: how many, CuPy has the host find out."""
    for each in key if isinstance(key, tuple) else (key,):
        if isinstance(each, np.ndarray) and each.dtype == bool:
            raise TypeError("the host waits, to count what an array of bools chooses")
    return key


def _plain(x):
    """As an array of the host, or several; TypeError if one of them was that before."""
    if isinstance(x, list | tuple):
        return type(x)(map(_plain, x))
    if isinstance(x, np.ndarray) and not isinstance(x, StrictArray):
        raise TypeError("found an array of the host among those of the device")
    return x.view(np.ndarray) if isinstance(x, StrictArray) else x


def _own(result):
    if isinstance(result, tuple):
        return tuple(map(_own, result))
    return np.asarray(result).view(StrictArray)


class _StrideTricks:
    @staticmethod
    def as_strided(x, shape, strides):
        return _strictly(np.lib.stride_tricks.as_strided, (x, shape, strides), {})


class _Lib:
    stride_tricks = _StrideTricks


class StrictModule:
    """What a device layer sees in the place of CuPy."""

    lib = _Lib

    def __getattr__(self, name):
        if name not in UFUNCS | FUNCTIONS:
            raise AttributeError(f"not in the list of what CuPy has: {name}")
        function = getattr(np, name)
        return lambda *args, **kwargs: _strictly(function, args, kwargs)


class Strict(Device):
    """NumPy that behaves as a GPU does."""

    name = "strict"
    xp = StrictModule()

    def __reduce__(self):
        return Strict, ()

    def to_device(self, array):
        if type(array) is not np.ndarray:
            raise TypeError(f"found {type(array)}, expected an array of the host")
        native = array.dtype.newbyteorder("=")  # CuPy has no other
        return np.array(array, native, order="C").view(StrictArray)

    def fill(self, array, values):
        if (array.shape, array.dtype) != (values.shape, values.dtype):
            raise TypeError(f"found {values.dtype} {values.shape}, expected {array.dtype}")
        array[...] = self.to_device(values)

    def to_host(self, array):
        if not isinstance(array, StrictArray):
            raise TypeError(f"found {type(array)}, expected an array of the device")
        return np.array(array.view(np.ndarray))
