"""A small data set as IDX files, whole and ready to be damaged."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES

WriteSet = Callable[..., Path]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """5 training and 3 test images of 4 × 3, labels 0 to 2, by file name."""
    rng = np.random.Generator(np.random.Philox(key=0))
    images = rng.integers(0, 256, (8, 4, 3), np.uint8)
    labels = np.array([0, 2, 1, 1, 0, 2, 0, 1], np.uint8)
    return dict(zip(IDX_FILES, (images[:5], labels[:5], images[5:], labels[5:]), strict=True))


@pytest.fixture
def write_set(tmp_path: Path, arrays: dict[str, np.ndarray]) -> WriteSet:
    """Writes the set to a new directory."""

    def write(gzipped: bool = False) -> Path:
        directory = tmp_path / ("gzipped" if gzipped else "raw")
        directory.mkdir(exist_ok=True)
        for name, array in arrays.items():
            content = format_idx(array)
            if gzipped:
                content, name = gzip.compress(content, mtime=0), f"{name}.gz"
            (directory / name).write_bytes(content)
        return directory

    return write
