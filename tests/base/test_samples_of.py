import numpy as np
import pytest

from distnet.base.arrays import StoredArray, samples_of

NUMBERS = np.array([4, 0, 4])
PIXELS = np.arange(120, dtype=np.uint8).reshape(6, 2, 5, 2)


class Doubled(StoredArray):
    def __getitem__(self, numbers):
        return 2 * PIXELS[numbers]


@pytest.mark.parametrize(
    "stored",
    [
        PIXELS,
        PIXELS[:, ::2],
        PIXELS.transpose(0, 3, 1, 2),
        PIXELS.astype(">f4"),
        PIXELS[:, 0, 0, 0],
    ],
    ids=["whole", "strided", "transposed", "big-endian", "labels"],
)
def test_samples_are_those_with_the_numbers(stored):
    found = samples_of(stored, NUMBERS)
    np.testing.assert_array_equal(found, stored[NUMBERS])
    assert found.dtype == stored.dtype and not np.shares_memory(found, stored)


def test_an_array_that_is_stored_elsewhere_is_indexed():
    np.testing.assert_array_equal(samples_of(Doubled(), NUMBERS), 2 * PIXELS[NUMBERS])


def test_a_sample_that_is_not_there_is_an_error():
    with pytest.raises(IndexError):
        samples_of(PIXELS, np.array([6]))
