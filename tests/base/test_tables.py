"""Columns stand under each other, whatever letters they are of."""

from __future__ import annotations

import unicodedata

from distnet.base.tables import aligned, places


def test_columns_to_the_left_and_to_the_right():
    assert aligned([["name", "n"], ["a", "100"]]) == ["name    n", "a     100"]
    assert aligned([["name", "n"], ["a", "100"]], left=2) == ["name  n", "a     100"]


def test_wide_letters_and_accents_take_the_places_that_terminals_give_them():
    accented = unicodedata.normalize("NFD", "Käse")
    assert (places("日本"), places("Käse"), places(accented)) == (4, 4, 4)
    lines = aligned([["日本", "1"], ["Käse", "1"], [accented, "1"]])
    assert {places(line) for line in lines} == {7}
