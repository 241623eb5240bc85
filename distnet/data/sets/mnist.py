"""MNIST, the data set of the book's section 3.6.1, which ships with the package."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from distnet.base.arrays import Shape
from distnet.data.cache import Stamp, decompressed, read_stamp
from distnet.data.dataset import Dataset, digest
from distnet.data.errors import explained
from distnet.data.formats.idx import take_idx
from distnet.data.formats.idx_set import IDX_FILES
from distnet.data.own import assembled
from distnet.data.sets.directory import read_path
from distnet.data.source import Source

# Of all labels, by which MNIST in a directory is recognized.
LABELS_SHA256 = "671ff9d70b4811116d55c3dd479efa7a981e2e62753ef7a6d5c15fea81e63d27"
# Of the packaged file, and the digest of what is in it. `decompressed` has held the content against
# the stamp, so that not every one of many ranks has to read it once more.
STAMP = Stamp(crc32=0xE6625E56, num_bytes=54_950_048)
PACKAGED_SHA256 = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"


def load(
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    input_shape: Shape = (),
    *,
    prepare: str = "plain",
) -> Dataset:
    """The packaged digits, or what lies in `data_dir`, see `read_path`.

    Processes share the decompressed digits in `cache_dir`; None keeps them in private memory. A
    directory may hold other data: unless it is MNIST it is called by its own name.
    """
    if data_dir is None:
        return packaged(cache_dir)
    data = read_path(data_dir, "", input_shape, prepare=prepare)
    is_mnist = digest([data.train.targets, data.test.targets]) == LABELS_SHA256
    return replace(data, name="mnist") if is_mnist else data


def packaged(cache_dir: Path | None = None) -> Dataset:
    """The digits in the package, read-only: bytes `(60000, 1, 28, 28)` and `(10000, 1, 28, 28)`."""
    source = resources.files("distnet.data") / "mnist.idx.gz"
    with explained(source):
        rest = decompressed(source, cache_dir)
    arrays = []
    for num_dims in IDX_FILES.values():
        array, rest = take_idx(rest, num_dims, str(source))
        arrays.append(array)
    data = assembled("mnist", arrays, [f"{source} ({file})" for file in IDX_FILES])
    return data.known_by(PACKAGED_SHA256) if read_stamp(source) == STAMP else data


MNIST = Source(
    load,
    "60,000 + 10,000 handwritten digits, 28 × 28 grey, 10 classes",
    "CC BY-SA 3.0",
    "http://yann.lecun.com/exdb/mnist/",
    place="in the package",
    shares=True,
)
