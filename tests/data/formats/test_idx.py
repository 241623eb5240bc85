"""IDX files from a directory: what loads, and one clear line for whatever does not."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from distnet.data import DataError, Dataset, load_dataset
from distnet.data.formats.idx import format_idx
from distnet.data.formats.idx_set import IDX_FILES

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = IDX_FILES


def failure(directory: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset("small", directory)
    message = str(caught.value)
    assert "\n" not in message
    return message


def replace(directory: Path, name: str, content: bytes) -> Path:
    (directory / name).write_bytes(content)
    return directory


def check_consistent(data: Dataset) -> None:
    for images, labels in (data.train, data.test):
        assert images.dtype == labels.dtype == np.uint8
        assert images.ndim == 4 and len(images) == len(labels) > 0
        assert labels.max() < data.num_classes
        assert not images.flags.writeable and not labels.flags.writeable
    assert data.train.inputs.shape[1:] == data.test.inputs.shape[1:] == data.input_shape


@pytest.mark.parametrize("gzipped", [False, True])
def test_loads_any_image_size_and_number_of_classes(write_set, arrays, gzipped):
    data = load_dataset("small", write_set(gzipped))
    check_consistent(data)
    assert (data.name, data.num_classes) == ("small", 3)
    np.testing.assert_array_equal(data.train.inputs[:, 0], arrays[TRAIN_IMAGES])
    np.testing.assert_array_equal(data.train.targets, arrays[TRAIN_LABELS])
    np.testing.assert_array_equal(data.test.inputs[:, 0], arrays[TEST_IMAGES])
    np.testing.assert_array_equal(data.test.targets, arrays[TEST_LABELS])


def test_labels_with_gaps_are_mapped(write_set):
    directory = replace(write_set(), TEST_LABELS, format_idx(np.array([0, 255, 1], np.uint8)))
    data = load_dataset("small", directory)
    assert data.classes == ("0", "1", "2", "255") and data.test.targets.tolist() == [0, 3, 1]
    assert data.notes == (
        "labels 0, 1, 2, 255 are classes 0 to 3, in this order",
        "the training data have no samples of 255, which the test data have",
    )


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_finds_dotted_names_and_steps_over_directories(write_set, suffix):
    directory = write_set(gzipped=bool(suffix))
    for name in IDX_FILES:
        (directory / f"{name}{suffix}").rename(
            directory / f"{name.replace('-idx', '.idx')}{suffix}"
        )
        (directory / name).mkdir()
    check_consistent(load_dataset("small", directory))


def test_missing_directory(tmp_path):
    assert f"{tmp_path}/none: found no such directory" in failure(tmp_path / "none")


def test_file_instead_of_directory(write_set):
    assert "found no such directory" in failure(write_set() / TRAIN_IMAGES)


@pytest.mark.parametrize("name", IDX_FILES)
def test_missing_file(write_set, name):
    directory = write_set()
    (directory / name).unlink()
    assert failure(directory).startswith(f"{directory}: found no file {name}, expected")


def test_unreadable_file(write_set, monkeypatch):
    def deny(path: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied", str(path))

    directory = write_set()
    monkeypatch.setattr(Path, "open", deny)
    assert failure(directory).startswith(f"{directory / TRAIN_IMAGES}: cannot be read (Permission")


def test_unreadable_directory(write_set, monkeypatch):
    def deny(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    directory = write_set()
    monkeypatch.setattr(Path, "is_file", deny)
    assert failure(directory).startswith(f"{directory}: cannot be read (Permission denied)")


@pytest.mark.parametrize("name", IDX_FILES)
@pytest.mark.parametrize("gzipped", [False, True])
def test_truncated_and_trailing_bytes(write_set, arrays, name, gzipped):
    directory, num_bytes = write_set(gzipped), arrays[name].size
    file = directory / (f"{name}.gz" if gzipped else name)
    whole = format_idx(arrays[name])
    for content, found in (
        (whole[:-1], f"found {num_bytes - 1} bytes after the header"),
        (whole + b"\0", f"found {f'more than {num_bytes}' if gzipped else num_bytes + 1} bytes"),
        (whole[:7], "found 7 bytes, expected an IDX header"),
        (b"", "found 0 bytes, expected an IDX header"),
    ):
        file.write_bytes(gzip.compress(content) if gzipped else content)
        message = failure(directory)
        assert message.startswith(f"{file}: {found}")
        assert "expected" in message


@pytest.mark.parametrize("length", [0, 1, 2, 5, 12, -9, -1])
def test_truncated_gzip(write_set, length):
    directory = write_set(gzipped=True)
    file = directory / f"{TRAIN_LABELS}.gz"
    file.write_bytes(file.read_bytes()[:length])
    assert failure(directory).startswith(f"{file}: ")


def test_damaged_gzip_checksum(write_set):
    directory = write_set(gzipped=True)
    file = directory / f"{TRAIN_LABELS}.gz"
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    assert "CRC check failed" in failure(directory)


def test_gz_name_without_gzip(write_set, arrays):
    directory = write_set(gzipped=True)
    replace(directory, f"{TEST_LABELS}.gz", format_idx(arrays[TEST_LABELS]))
    message = failure(directory)
    assert message.startswith(f"{directory / TEST_LABELS}.gz: found a file that starts with 0000")
    assert "take .gz off" in message


def test_wrong_magic(write_set, arrays):
    directory = replace(write_set(), TRAIN_IMAGES, format_idx(arrays[TRAIN_LABELS]))
    assert "found magic number 0x00000801, expected 0x00000803" in failure(directory)


@pytest.mark.parametrize(
    ("name", "other", "numbers"),
    [
        (TRAIN_LABELS, TEST_LABELS, "found 3, expected 5, one for each image"),
        (TEST_LABELS, TRAIN_LABELS, "found 5, expected 3, one for each image"),
    ],
)
def test_count_mismatch(write_set, arrays, name, other, numbers):
    directory = replace(write_set(), name, format_idx(arrays[other]))
    assert failure(directory).startswith(f"{directory / name}: {numbers}")


def test_test_images_of_another_size(write_set):
    directory = replace(write_set(), TEST_IMAGES, format_idx(np.zeros((3, 3, 4), np.uint8)))
    assert "found images (1, 3, 4), expected (1, 4, 3) as for training" in failure(directory)


@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (5, 4, 0), (0, 2**32 - 1, 2**32 - 1)])
def test_empty_set(write_set, shape):
    directory = replace(write_set(), TRAIN_IMAGES, struct.pack(">I3I", 0x803, *shape))
    assert "found an empty set" in failure(directory)


@pytest.mark.parametrize("gzipped", [False, True])
def test_absurd_header_allocates_nothing(write_set, gzipped):
    content = struct.pack(">I3I", 0x803, *[2**32 - 1] * 3) + bytes(1000)
    directory = write_set(gzipped)
    if gzipped:
        replace(directory, f"{TRAIN_IMAGES}.gz", gzip.compress(content))
    else:
        replace(directory, TRAIN_IMAGES, content)
    tracemalloc.start()
    assert f"expected {(2**32 - 1) ** 3}" in failure(directory)
    assert peak_bytes() < 4 << 20


def test_gzip_bomb_is_not_decompressed(write_set):
    content = gzip.compress(struct.pack(">I3I", 0x803, 5, 4, 3) + bytes(50 << 20))
    directory = replace(write_set(gzipped=True), f"{TRAIN_IMAGES}.gz", content)
    tracemalloc.start()
    assert "found more than 60 bytes" in failure(directory)
    assert peak_bytes() < 4 << 20


def peak_bytes() -> int:
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", ["raw", "gzip", "gzip of damaged"])
def test_fuzz(write_set, kind):
    """Whatever happens to a file, it loads or raises DataError, in little memory."""
    rng = np.random.Generator(np.random.Philox(key=7))
    directory = write_set(gzipped=kind != "raw")
    whole = {path: path.read_bytes() for path in sorted(directory.iterdir())}
    outcomes = {True: 0, False: 0}
    tracemalloc.start()
    for _ in range(700):
        path = list(whole)[rng.integers(4)]
        overwrite(path, damaged(whole[path], kind, rng))
        outcomes[loads(directory)] += 1
        overwrite(path, whole[path])
    assert peak_bytes() < 4 << 20
    assert min(outcomes.values()) > 10, "the damage is all too mild or all too strong"


def overwrite(path: Path, content: bytes) -> None:
    """By a new file: the old one may still be mapped."""
    path.with_name("new").write_bytes(content)
    os.replace(path.with_name("new"), path)


def damaged(content: bytes, kind: str, rng: np.random.Generator) -> bytes:
    if kind == "gzip of damaged":
        return gzip.compress(mutated(gzip.decompress(content), rng), mtime=0)
    return mutated(content, rng)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """One to three random changes: a byte, a bit, a piece lost, an end lost, bytes added."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start, stop = sorted(rng.integers(0, len(data) + 1, 2))
        match rng.integers(6):
            case 0 if start < len(data):
                data[start] = rng.integers(256)
            case 1 if start < len(data):
                data[start] ^= 1 << int(rng.integers(8))
            case 2:
                del data[start : start + 3]
            case 3:
                del data[stop:]
            case 4:
                data[start:start] = rng.bytes(rng.integers(1, 5))
            case 5:
                data[: min(16, stop)] = rng.bytes(min(16, stop))
    return bytes(data)


def loads(directory: Path) -> bool:
    try:
        data = load_dataset("small", directory)
    except DataError as error:
        assert "\n" not in str(error) and str(directory) in str(error)
        return False
    check_consistent(data)
    return True
