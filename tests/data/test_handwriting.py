"""MNIST's own digits, enlarged and put elsewhere on a sheet of paper, come back."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.resampling import covering, scaling
from distnet.data import DataError, load_dataset
from distnet.data.handwriting import as_mnist, on_black

RNG = np.random.Generator(np.random.Philox(key=12))


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    return np.ascontiguousarray(load_dataset().test.inputs[:20, 0])


def sheet(digit: np.ndarray, paper: float, ink: float, times: int = 6) -> np.ndarray:
    """A digit on 300 x 400 pixels of paper, away from the middle."""
    weights = scaling(28, 28 * times)
    large = weights @ digit @ weights.T
    share = np.zeros((300 * times // 6, 400 * times // 6))
    top, left = 90 * times // 6, 200 * times // 6
    share[top : top + len(large), left : left + len(large)] = large / 255
    return paper + (ink - paper) * share


def likeness(found: list[np.ndarray], digits: np.ndarray) -> float:
    """The mean correlation; a shift of all by one pixel leaves 0.78."""
    pairs = zip(found, digits, strict=True)
    return float(np.mean([np.corrcoef(x.ravel(), t.ravel())[0, 1] for x, t in pairs]))


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (190, 40), (30, 220), (110, 10)])
@pytest.mark.parametrize("times", [3, 6, 12])
def test_polarity_size_and_place(digits, paper, ink, times):
    found = [as_mnist(sheet(digit, paper, ink, times).astype(np.uint8)) for digit in digits]
    assert likeness(found, digits) > 0.94


@pytest.mark.parametrize(
    ("shade", "grain"), [(0.4, 0), (0, 8), (0.4, 8)], ids=["shade", "grain", "shade and grain"]
)
def test_a_photograph(digits, shade, grain):
    """A lamp stands on one side: the other has 40 % less light, and the sensor adds its noise."""
    light = 1 - shade * np.linspace(0, 1, 400) * np.ones((300, 1))
    found = []
    for digit in digits:
        seen = sheet(digit, 200, 60) * light + grain * RNG.standard_normal(light.shape)
        found.append(as_mnist(seen.clip(0, 255).astype(np.uint8)))
    assert likeness(found, digits) > 0.88  # 0.3 if the shade or the grain is taken for ink


def test_what_has_the_size_already_is_left_alone(digits):
    np.testing.assert_array_equal(as_mnist(255 - digits[0]), digits[0])
    np.testing.assert_array_equal(as_mnist(digits[0]), digits[0])


def test_the_box_and_the_centre_of_mass():
    paper = np.full((100, 100), 255, np.uint8)
    paper[20:60, 10:14] = 0  # a bar of 40 by 4 pixels
    rows, columns = np.nonzero(as_mnist(paper))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 23, 14, 15)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (28, 28), (50, 50), (2, 3000)])
def test_an_empty_sheet(shape):
    with pytest.raises(DataError, match="x: found an empty picture, expected a digit"):
        as_mnist(np.full(shape, 255, np.uint8), "x")


@pytest.mark.parametrize("shape", [(1, 20), (20, 300), (29, 28), (40, 40)])
def test_odd_pictures_become_digits_or_are_empty(shape):
    for share in (0.01, 0.1):
        odd = np.where(RNG.random(shape) < share, 0, 255).astype(np.uint8)
        odd[0, 0] = 0
        found = as_mnist(odd)
        assert (found.shape, found.dtype, found.max()) == ((28, 28), np.uint8, 255)
    with pytest.raises(DataError, match="empty"):
        as_mnist(RNG.normal(128, 10, (200, 200)).astype(np.uint8))


def test_covering_keeps_what_there_is_and_sharp_edges():
    for old, new in ((7, 3), (3, 7), (20, 20), (1, 5), (400, 28)):
        weights = covering(old, new)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        np.testing.assert_allclose(weights.sum(axis=0), new / old)
    assert (covering(6, 3) @ [0, 0, 4, 4, 0, 8]).tolist() == [0, 4, 4]


@pytest.mark.parametrize(("paper", "ink"), [(255, 0), (0, 255), (190, 40), (30, 220)])
def test_scenes_of_ink_on_paper_are_light_on_black(paper, ink):
    page = np.full((20, 30), paper, np.uint8)
    page[5:9, 10:20] = ink
    page[15, 15] = paper + (1 if paper < 128 else -1)
    found = on_black(page)
    assert (found[5:9, 10:20] == abs(ink - paper)).all() and found[15, 15] == 1
    assert np.count_nonzero(found) == 4 * 10 + 1
    assert not on_black(page[:1, :1]).any()
