"""Numbers of things are grammar."""

import pytest

from distnet.base.words import counted


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(1, "step"), "1 step"),
        (counted(0, "step"), "0 steps"),
        (counted(2400, "step"), "2400 steps"),
        (counted(60_000, "sample", spec=","), "60,000 samples"),
        (counted(1, "class", "classes"), "1 class"),
        (counted(2, "class", "classes"), "2 classes"),
    ],
)
def test_a_number_of_things(said, expected):
    assert said == expected
