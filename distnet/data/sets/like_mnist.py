"""Fashion-MNIST, KMNIST, QMNIST and EMNIST: four IDX files each, under their published names."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from distnet.data.dataset import Dataset
from distnet.data.formats.idx_set import IDX_FILES, has_idx_set, read_idx_set
from distnet.data.own import assembled
from distnet.data.source import RemoteFile, Source, directory_of

GARMENTS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
HIRAGANA = tuple("おきすつなはまやれを")
DIGITS = tuple(string.digits)
BYCLASS = (*string.digits, *string.ascii_uppercase, *string.ascii_lowercase)
# 15 letters whose small form looks like the capital are one class with it.
BALANCED = (*string.digits, *string.ascii_uppercase, *"abdefghnqrt")


def load(
    name: str, classes: Sequence[str], data_dir: Path | None, cache_dir: Path | None
) -> Dataset:
    """A data set whose files have MNIST's names."""
    arrays, sources = read_idx_set(directory_of(name, data_dir, cache_dir))
    return assembled(name, arrays, sources, classes=classes)


QMNIST_FILES = {
    f"qmnist-{part}-{file}": num_dims
    for part in ("train", "test")
    for file, num_dims in (("images-idx3-ubyte", 3), ("labels-idx2-int", 2))
}


def load_qmnist(data_dir: Path | None, cache_dir: Path | None) -> Dataset:
    """60,000 digits for the test; a label is the first of eight integers about a digit."""
    directory = directory_of("qmnist", data_dir, cache_dir)
    arrays, sources = read_idx_set(directory, QMNIST_FILES)
    arrays[1::2] = [labels[:, 0] for labels in arrays[1::2]]
    return assembled("qmnist", arrays, sources, classes=DIGITS)


def emnist_files(split: str) -> dict[str, int]:
    """The published names of the files of one of EMNIST's splits."""
    return {
        f"emnist-{split}-{file.replace('t10k', 'test')}": num_dims
        for file, num_dims in IDX_FILES.items()
    }


def load_emnist(
    split: str, classes: Sequence[str], data_dir: Path | None, cache_dir: Path | None
) -> Dataset:
    """One of EMNIST's splits; its images are stored column by column and turned back here."""
    name = f"emnist_{split}"
    directory = _emnist_folder(directory_of(name, data_dir, cache_dir, "emnist"))
    arrays, sources = read_idx_set(directory, emnist_files(split))
    arrays[::2] = [
        images.reshape(len(images), 1, *images.shape[1:]).transpose(0, 1, 3, 2)
        for images in arrays[::2]
    ]
    return assembled(name, arrays, sources, classes=classes)


def _emnist_folder(directory: Path) -> Path:
    """Where the archive has unpacked the files to, or the directory itself."""
    inner = directory / "gzip"
    return inner if inner.is_dir() else directory


def _has_emnist(split: str, directory: Path) -> bool:
    return has_idx_set(_emnist_folder(directory), emnist_files(split))


def _gzipped(folder: str, files: Iterable[str], *sha256: str) -> tuple[RemoteFile, ...]:
    """The four files with their digests, all under one address."""
    return tuple(
        RemoteFile(f"{file}.gz", folder, digest) for file, digest in zip(files, sha256, strict=True)
    )


FASHION_MNIST = Source(
    partial(load, "fashion_mnist", GARMENTS),
    "60,000 + 10,000 garments, 28 × 28 grey, 10 classes",
    "MIT",
    "https://github.com/zalandoresearch/fashion-mnist",
    download="31 MB",
    files=_gzipped(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        IDX_FILES,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
KMNIST = Source(
    partial(load, "kmnist", HIRAGANA),
    "60,000 + 10,000 old Japanese characters, 28 × 28 grey, 10 classes",
    "CC BY-SA 4.0",
    "https://codh.rois.ac.jp/kmnist/",
    download="21 MB",
    files=_gzipped(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
        IDX_FILES,
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
)
QMNIST = Source(
    load_qmnist,
    "60,000 + 60,000 handwritten digits, 28 × 28 grey, 10 classes",
    "BSD",
    "https://github.com/facebookresearch/qmnist",
    download="20 MB",
    files=_gzipped(
        "https://raw.githubusercontent.com/facebookresearch/qmnist/master",
        QMNIST_FILES,
        "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
        "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
        "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
        "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
    ),
    is_in=partial(has_idx_set, files=QMNIST_FILES),
)


def _emnist(split: str, classes: Sequence[str], contents: str) -> Source:
    """All splits are in one archive."""
    archive = RemoteFile(
        "gzip.zip",
        "https://biometrics.nist.gov/cs_links/EMNIST",
        "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
    )
    return Source(
        partial(load_emnist, split, classes),
        f"{contents}, 28 × 28 grey, {len(classes)} classes",
        "public domain (NIST)",
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        download="562 MB",
        files=(archive,),
        directory="emnist",
        is_in=partial(_has_emnist, split),
    )


EMNIST = {
    "balanced": _emnist("balanced", BALANCED, "131,600 letters and digits"),
    "letters": _emnist("letters", tuple(string.ascii_lowercase), "145,600 letters"),
    "digits": _emnist("digits", DIGITS, "280,000 digits"),
    "byclass": _emnist("byclass", BYCLASS, "814,255 letters and digits"),
    "bymerge": _emnist("bymerge", BALANCED, "814,255 letters and digits"),
}
