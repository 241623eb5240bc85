"""What counts as plain data: files can hold it, and ranks can compare it."""

import numpy as np
import pytest

from distnet.base.plain import is_plain, plain_items


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "text", np.float32(2), [1, ("a", None)], ()])
def test_numbers_text_and_lists_of_them_are_plain(value):
    assert is_plain(value)


@pytest.mark.parametrize("value", [len, object(), np.zeros(2), {"a": 1}, [1, len], float])
def test_anything_else_is_not(value):
    assert not is_plain(value)


def test_plain_items_keep_their_names():
    named = {"lr": 0.1, "schedule": len, "shape": (2, 3)}
    assert plain_items(named) == {"lr": 0.1, "shape": (2, 3)}
