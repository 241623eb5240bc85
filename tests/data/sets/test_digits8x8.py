"""scikit-learn's digits, from its data file and without scikit-learn itself."""

from __future__ import annotations

import gzip
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DataError, load_dataset
from distnet.data.sets import digits8x8

RNG = np.random.Generator(np.random.Philox(key=9))
ROWS = np.column_stack([RNG.integers(0, 17, (1797, 64)), np.arange(1797) % 10])


def write(directory: Path, rows: np.ndarray = ROWS) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(",".join(map(str, row)) for row in rows)
    (directory / digits8x8.FILE).write_bytes(gzip.compress(lines.encode()))
    return directory


@pytest.mark.parametrize("where", ["data_dir", "scikit-learn"])
def test_grey_values_of_16_become_bytes(tmp_path, monkeypatch, where):
    package = tmp_path / "sklearn"
    directory = write(package / "datasets" / "data")
    spec = ModuleSpec("sklearn", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(digits8x8, "find_spec", lambda name: spec)
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)  # other tests have imported it
    data = load_dataset("digits8x8", directory if where == "data_dir" else None)
    assert (data.name, data.input_shape, data.num_classes) == ("digits8x8", (1, 8, 8), 10)
    images = np.concatenate([data.train.inputs, data.test.inputs])
    np.testing.assert_array_equal(np.rint(images.reshape(1797, 64) / 255 * 16), ROWS[:, :64])
    assert images.max() == 255 and images.dtype == np.uint8
    labels = np.concatenate([data.train.targets, data.test.targets])
    np.testing.assert_array_equal(labels, ROWS[:, 64])
    assert len(data.train.targets) == 1437
    assert "sklearn" not in sys.modules


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(digits8x8, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="found no scikit-learn, expected it"):
        load_dataset("digits8x8")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:5], "found 5 lines of 65 numbers"),
        (ROWS[:, 1:], "found 1797 lines of 64 numbers"),
        (ROWS * 2, "the largest 32, expected"),
        (np.full((1797, 65), "x"), "found no table of numbers"),
    ],
)
def test_other_tables(tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        load_dataset("digits8x8", write(tmp_path, rows))


def test_a_damaged_file(tmp_path):
    path = write(tmp_path) / digits8x8.FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("digits8x8", tmp_path)
