"""Scratch: memory that many arrays overlay, which none may mistake for its own."""

import numpy as np

from distnet.nn.scratch import Scratch


def test_arrays_taken_together_are_disjoint_and_of_the_asked_sizes():
    arrays = Scratch().take(5, 0, 1000, 3, dtype=np.float32)
    assert [a.size for a in arrays] == [5, 0, 1000, 3]
    for i, array in enumerate(arrays):
        array[...] = i
    assert all((array == i).all() for i, array in enumerate(arrays))


def test_arrays_by_name_are_those_by_order():
    scratch = Scratch()
    first, second = scratch.take(5, 8, dtype=np.float32)
    named = scratch.take_named(np.float32, du=5, db=8)
    for one, other in ((first, named.du), (second, named.db)):
        assert (one.size, one.ctypes.data) == (other.size, other.ctypes.data)


def test_arrays_taken_later_overlay_the_same_memory():
    scratch = Scratch()
    (first,) = scratch.take(10, dtype=np.float64)
    second, third = scratch.take(3, 4, dtype=np.float32)
    assert np.shares_memory(first, second)
    assert np.shares_memory(first, third)


def test_it_grows_and_says_so():
    moved = []
    scratch = Scratch(lambda: moved.append(scratch.nbytes))
    (early,) = scratch.take(4, dtype=np.float64)
    early[...] = 7
    (late,) = scratch.take(4000, dtype=np.float64)
    late[...] = 8
    np.testing.assert_array_equal(early, 7)  # still usable, in memory of its own
    scratch.take(3000, 500, dtype=np.float64)
    assert moved == [0, 64]


def test_growing_step_by_step_seldom_takes_new_memory():
    moved = []
    scratch = Scratch(lambda: moved.append(True))
    for size in range(2, 5000, 7):
        scratch.take(size, dtype=np.uint8)
    assert len(moved) == 8  # 64, 128, ... 8192
