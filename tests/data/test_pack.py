"""Packing IDX files into the file that ships with the package."""

from __future__ import annotations

import gzip

import pytest

from distnet.data.formats.idx import format_idx, take_idx
from distnet.data.formats.idx_set import IDX_FILES
from distnet.data.pack import main


def test_holds_the_four_files_in_order(write_set, arrays, tmp_path):
    out = tmp_path / "small.idx.gz"
    assert main([str(write_set(gzipped=True)), str(out)]) == 0
    content = gzip.decompress(out.read_bytes())
    assert content == b"".join(format_idx(arrays[name]) for name in IDX_FILES)
    rest = memoryview(content)
    for name, num_dims in IDX_FILES.items():
        array, rest = take_idx(rest, num_dims, name)
        assert (array == arrays[name]).all()
    assert not rest


def test_same_bytes_every_time(write_set, tmp_path):
    for out in ("first", "second"):
        main([str(write_set()), str(tmp_path / out)])
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.parametrize("out", ["out", "no/such/directory"])
def test_bad_input_is_one_line_and_exit_code_2(write_set, tmp_path, capsys, out):
    directory = write_set()
    if out == "out":
        (directory / "train-labels-idx1-ubyte").unlink()
    assert main([str(directory), str(tmp_path / out)]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("distnet: error: ")
    assert shown.count("\n") == 1
