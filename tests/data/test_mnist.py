"""The MNIST that ships with the package: every byte is the published one."""

from __future__ import annotations

import hashlib
import mmap
import operator
from importlib import resources

import numpy as np
import pytest

from distnet.data import DataError, Dataset, load_dataset
from distnet.data.formats.idx import format_idx
from distnet.data.sets import mnist as module

PUBLISHED_SHA256 = {
    "train.inputs": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train.targets": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test.inputs": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test.targets": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.fixture(scope="module", params=["private", "written", "mapped"])
def mnist(request, tmp_path_factory) -> Dataset:
    if request.param == "private":
        return load_dataset()
    cache_dir = tmp_path_factory.mktemp("cache")
    written = load_dataset(cache_dir=cache_dir)
    return written if request.param == "written" else load_dataset(cache_dir=cache_dir)


@pytest.mark.parametrize("field", PUBLISHED_SHA256)
def test_is_the_published_data(mnist, field):
    array = operator.attrgetter(field)(mnist)
    file = format_idx(array[:, 0] if array.ndim == 4 else array)
    assert hashlib.sha256(file).hexdigest() == PUBLISHED_SHA256[field]


def test_shapes(mnist):
    assert (mnist.name, mnist.num_classes) == ("mnist", 10)
    assert mnist.train.inputs.shape == (60000, 1, 28, 28)
    assert mnist.test.inputs.shape == (10000, 1, 28, 28)


def test_cannot_be_written_to(mnist):
    with pytest.raises(ValueError, match="read-only"):
        mnist.train.inputs[0] = 0


def test_is_shared_through_a_map(tmp_path):
    assert isinstance(owner(load_dataset().train.inputs), bytes)
    for _ in ("written", "found"):
        data = load_dataset(cache_dir=tmp_path)
        for field in PUBLISHED_SHA256:
            assert isinstance(owner(operator.attrgetter(field)(data)), mmap.mmap)


@pytest.mark.parametrize("content", [b"", b"version https://", bytes(100)])
def test_damaged_package(tmp_path, monkeypatch, content):
    (tmp_path / "mnist.idx.gz").write_bytes(content)
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path)
    for cache_dir in (None, tmp_path):
        with pytest.raises(DataError, match=r"mnist\.idx\.gz: "):
            load_dataset(cache_dir=cache_dir)


def test_size_and_licence():
    package = resources.files("distnet.data")
    assert len((package / "mnist.idx.gz").read_bytes()) <= 12_000_000
    licence = (package / "mnist.LICENSE.txt").read_text(encoding="utf-8")
    for word in ("LeCun", "Cortes", "Burges", "ShareAlike 3.0", *PUBLISHED_SHA256.values()):
        assert word in licence


def owner(array: np.ndarray) -> object:
    """Whose memory it is."""
    base: object = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    return base
