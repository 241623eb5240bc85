"""What is held out: the right number of every class, by the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnet.data import (
    DataError,
    Samples,
    dataset_from_arrays,
    file_array,
    split,
    with_all_as_test,
    with_test,
)

LABELS = np.repeat([0, 1, 2], [60, 30, 12])


def numbered(labels: np.ndarray) -> Samples:
    return Samples(np.arange(len(labels)), labels)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_every_class_gives_its_part(order):
    kept, held = split(numbered(LABELS[order]), 1 / 6)
    assert np.bincount(held.targets).tolist() == [10, 5, 2]
    assert sorted([*kept.inputs, *held.inputs]) == list(range(102))
    for part in (kept, held):
        assert (np.diff(part.inputs) > 0).all()  # the old order
        np.testing.assert_array_equal(part.targets, LABELS[order][part.inputs])


@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**64 - 1), st.integers(1, 5))
def test_the_fraction_as_nearly_as_can_be(num_samples, fraction, seed, num_classes):
    samples = numbered(np.arange(num_samples) % num_classes)
    if not 0.5 <= num_samples * fraction < num_samples - 0.5:
        return
    kept, held = split(samples, fraction, seed)
    assert abs(len(held.targets) - num_samples * fraction) <= 0.5
    assert len(kept.targets) + len(held.targets) == num_samples
    expected = np.bincount(samples.targets) * fraction
    assert abs(np.bincount(held.targets, minlength=len(expected)) - expected).max() <= 1


def test_depends_on_the_seed_alone():
    first, again, other = (split(numbered(LABELS), 0.3, seed)[1].inputs for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert 0 < len(set(first) & set(other)) < len(first)
    _, held = split(numbered(LABELS), 0.05)
    assert held.inputs.tolist() == HELD  # in every version


HELD = [20, 38, 56, 61, 84]


def test_targets_that_are_no_labels():
    samples = Samples(np.arange(40), np.zeros((40, 2, 3)))
    kept, held = split(samples, 0.25)
    assert held.targets.shape == (10, 2, 3) and len(kept.inputs) == 30


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.999, 1.0])
def test_nothing_on_one_side(fraction):
    with pytest.raises(DataError, match="found 102 samples of which"):
        split(numbered(LABELS), fraction)


def test_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(file_array, "MEMORY_BYTES", 10)
    images = np.arange(102 * 12).reshape(102, 12).astype(np.float32)
    (tmp_path / "x").write_bytes(images.tobytes())
    stored = file_array.file_array(tmp_path / "x", images.shape, np.float32)
    kept, held = split(Samples(stored, LABELS), 1 / 6)
    assert isinstance(held.inputs, file_array.FileArray) and held.inputs.shape == (17, 12)
    in_memory = split(Samples(images, LABELS), 1 / 6)
    np.testing.assert_array_equal(kept.inputs, in_memory[0].inputs)
    np.testing.assert_array_equal(held.inputs, in_memory[1].inputs)


def test_a_data_set_without_test_data():
    images = np.random.default_rng(0).random((60, 4, 4))
    whole = dataset_from_arrays(images, [5, 7] * 30)
    parted = with_test(whole)
    assert len(parted.train.targets) == 50 and len(parted.test.targets) == 10
    mapping, held = parted.notes
    assert mapping == whole.notes[0]
    assert held == ("there are no test data: 10 of 60 samples are held out for the test, by seed 0")
    assert with_test(parted) is parted
    assert parted.sha256 != whole.sha256
    every = with_all_as_test(whole)
    assert every.train is every.test is whole.train
    assert every.notes == (mapping, "there are no test data: all of it, 60 samples, is the test")
    assert with_all_as_test(parted) is parted


def test_a_class_of_which_no_sample_stays_is_told():
    parted = with_test(dataset_from_arrays(np.zeros((3, 4, 4)), ["a", "b", "c"]))
    (held,) = parted.test.targets
    name = parted.classes[held]
    told = f"the training data have no samples of {name}, which the test data have"
    assert parted.notes[-1] == told and held not in parted.train.targets
