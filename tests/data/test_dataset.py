"""What a data set knows of itself: its classes, its shape, its scale and a digest of its data."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from distnet.data import Dataset, Samples, dataset, load_dataset


def small(images: np.ndarray, labels: np.ndarray) -> Dataset:
    return Dataset("small", Samples(images, labels), Samples(images[:1], labels[:1]), ("a", "b"))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=3)).integers(0, 256, (50, 3, 4, 5), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(50, dtype=np.uint8) % 2


def test_shape_and_classes(images, labels):
    data = small(images, labels)
    assert (data.input_shape, data.num_classes) == ((3, 4, 5), 2)


def test_bytes_mean_0_to_1_and_floats_are_taken_as_they_are(images, labels):
    assert small(images, labels).scale == 1 / 255
    assert small(images.astype(np.float32), labels).scale == 1


def test_the_digest_is_that_of_all_bytes_in_a_row(images, labels, monkeypatch):
    monkeypatch.setattr(dataset, "PIECE_BYTES", 100)
    whole = b"".join(a.tobytes() for a in (images, labels, images[:1], labels[:1]))
    assert small(images, labels).sha256 == hashlib.sha256(whole).hexdigest()
    channels_last = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    assert small(channels_last, labels).sha256 == small(images, labels).sha256


def test_the_digest_of_mnist():
    """Checkpoints hold it: with another one, no earlier run could be resumed."""
    expected = "06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16"
    data = load_dataset()
    assert data.sha256 == dataset.digest((*data.train, *data.test)) == expected


class TestDigestOfALargeArray:
    @pytest.fixture(autouse=True)
    def _small_limits(self, monkeypatch):
        monkeypatch.setattr(dataset, "WHOLE_BYTES", 1000)
        monkeypatch.setattr(dataset, "PIECE_BYTES", 120)
        monkeypatch.setattr(dataset, "NUM_PIECES", 5)

    def test_changes_with_the_first_and_the_last_byte(self, images):
        before = dataset.digest([images])
        for place in (0, -1):
            changed = images.copy()
            changed.flat[place] ^= 1
            assert dataset.digest([changed]) != before

    def test_changes_with_shape_type_and_order(self, images):
        digests = {
            dataset.digest([array])
            for array in (images, images[:-1], images[::-1], images.view(np.int8))
        }
        assert len(digests) == 4

    def test_reads_a_few_pieces_only(self, images):
        class Watched(np.ndarray):
            rows = 0

            def __getitem__(self, key):
                Watched.rows += len(range(*key.indices(len(self))))
                return super().__getitem__(key)

        dataset.digest([images.view(Watched)])
        assert Watched.rows == 5 * 2
