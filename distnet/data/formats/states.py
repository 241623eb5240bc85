"""Files of named arrays as other programs write them: safetensors, and state dicts of PyTorch.

The end of a file's name tells its format. In none of them is anything run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy

from distnet.base.arrays import Array
from distnet.base.files import write_atomically
from distnet.data.errors import DataError
from distnet.data.formats.pickled import content_of, whole
from distnet.data.formats.torch_file import MAX_BYTES, read_torch, write_torch

TORCH = (".pt", ".pth")
SAFETENSORS = ".safetensors"
EXPECTED = f"expected a name that ends in {SAFETENSORS}, {' or '.join(TORCH)}"


def read_state(path: Path) -> dict[str, Array]:
    """The arrays in a file, by name; raises DataError, one line, for whatever cannot be used."""
    if path.suffix in TORCH:
        return read_torch(path)
    if path.suffix != SAFETENSORS:
        raise DataError(f"{path}: found no name of a file of arrays, {EXPECTED}")
    content = content_of(path, MAX_BYTES, "arrays")
    with whole(path, "safetensors file of NumPy's types"):
        return safetensors.numpy.load(content)


def write_state(path: Path, state: Mapping[str, Array]) -> None:
    """Writes named arrays, atomically; raises OSError, ValueError for another name of a file."""
    if path.suffix in TORCH:
        write_torch(path, state)
    elif path.suffix == SAFETENSORS:
        arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
        write_atomically(path, safetensors.numpy.save(arrays, metadata={"format": "pt"}))
    else:
        raise ValueError(f"{path}: found no name of a file of arrays, {EXPECTED}")
