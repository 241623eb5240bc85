"""The names of classes in a file of the user's."""

import json

import pytest

from distnet.data import DataError
from distnet.data.classes import read_class_names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "tabby cat\ndog\n"),
        ("names.txt", "tabby cat  \r\ndog"),
        ("names.txt", "\ufefftabby cat\ndog\n\n"),
        ("names.json", json.dumps(["tabby cat", "dog"])),
        ("names.json", json.dumps({"1": "dog", "0": "tabby cat"})),
        ("index.json", json.dumps({"0": ["n02123045", "tabby cat"], "1": ["n02084071", "dog"]})),
    ],
)
def test_text_and_json(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_class_names(tmp_path / name) == ("tabby cat", "dog")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b"\xff\xfe"),
        ("a.txt", b"a\x07b\n"),
        ("a.txt", b"cat\n\ndog\n"),
        ("a.json", b'["cat", ""]'),
        ("a.json", b"[]"),
        ("a.json", b"3"),
        ("a.json", b"[1, 2]"),
        ("a.json", b"[[], []]"),
        ("a.json", b'{"0": "a", "2": "b"}'),
        ("a.json", b"{"),
    ],
)
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="found no names of classes, expected a line") as caught:
        read_class_names(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="found no file"):
        read_class_names(tmp_path / "x.txt")
