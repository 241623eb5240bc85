"""A few hundred damaged files of each format; `python -m tests.fuzz` tries as many as wanted."""

from __future__ import annotations

import fuzz
import pytest

FORMATS = fuzz.formats()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, name):
    form = FORMATS[name]
    outcome = fuzz.fuzz(form, 300, seed=1, directory=tmp_path)
    assert outcome.num_read + outcome.num_refused == 300
    assert outcome.num_refused > 30 or not form.refuses
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_not_damaged_is_read(tmp_path, name):
    form = FORMATS[name]
    path = tmp_path / f"whole{form.suffix}"
    path.write_bytes(form.finish(form.valid))
    form.read(path)


def test_a_reader_that_breaks_is_found(tmp_path):
    broken = fuzz.Format("", b"0123456789", lambda path: int(path.read_bytes()), (KeyError,))
    with pytest.raises(AssertionError, match="found ValueError: invalid literal"):
        fuzz.fuzz(broken, 300, seed=1, directory=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1, "the file is kept"
