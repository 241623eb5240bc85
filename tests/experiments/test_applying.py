"""Scripts for pictures of one's own: what they cannot use is one line and exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import distnet
from distnet.experiments import load
from distnet.experiments.applying import apply
from distnet.experiments.vision import DIGIT_COLOURS, colours_of
from distnet.models import FCN, NIC

Image = pytest.importorskip("PIL.Image", reason="Pillow is an extra")
CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08"
SCRIPTS = {name: load(CHAPTER / f"{name}_picture.py") for name in ("caption", "detect", "segment")}
WORDS = tuple(f"word{number}" for number in range(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Networks, pictures, and what is neither."""
    folder = tmp_path_factory.mktemp("applying")
    small = {"filters": (4, 4, 8), "hidden": 8}
    networks = {
        "caption": NIC((1, 16, 16), 5, 3, **small),
        "coloured": NIC((3, 16, 16), 5, 3, **small),
        "segment": FCN((1, 16, 24), 5),
        "network": FCN((1, 16, 24), 5),  # called as the one file of an R-CNN
    }
    for name, network in networks.items():
        distnet.save(network, folder / f"{name}.safetensors", classes=WORDS)
    distnet.save(networks["segment"], folder / "nameless.safetensors")
    Image.fromarray(np.eye(9, dtype=np.uint8) * 200).save(folder / "fine.png")
    (folder / "text.png").write_text("no picture")
    return folder


def told(script, folder, capsys, monkeypatch, *arguments):
    """The exit code, and the lines that are printed and that are said to be wrong."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["script.py", *arguments])
    with pytest.raises(SystemExit) as exit:
        apply(f"{script}_picture.py", SCRIPTS[script].use)
    said = capsys.readouterr()
    return exit.value.code, said.out.splitlines(), said.err.splitlines()


@pytest.mark.parametrize(("name", "out"), [("caption", "said.png"), ("segment", "new/masks.jpg")])
def test_a_picture_is_read_and_one_is_written_into_a_folder_that_is_made(
    folder, capsys, monkeypatch, name, out
):
    code, lines, wrong = told(
        name, folder, capsys, monkeypatch, f"{name}.safetensors", "fine.png", out
    )
    assert (code, lines[-1], wrong) == (0, f"wrote {out}", [])
    with Image.open(folder / out) as image:
        assert image.format == ("PNG" if out.endswith("png") else "JPEG")


@pytest.mark.parametrize(
    ("script", "arguments", "expected"),
    [
        ("caption", ["caption.safetensors", "fine.png"], "found no OUT, expected python caption_"),
        ("caption", ["caption.safetensors", "missing.png", "o.png"], "missing.png: cannot be read"),
        (
            "caption",
            ["caption.safetensors", "text.png", "o.png"],
            "text.png: cannot be read (it",
        ),
        ("caption", ["caption.safetensors", "fine.png", "o.txt"], "o.txt: cannot be written, exp"),
        (
            "caption",
            ["caption.safetensors", "fine.png", "fine.png/o.png"],
            "fine.png/o.png: can",
        ),
        ("caption", ["missing", "fine.png", "o.png"], "missing: found no file"),
        ("caption", ["text.png", "fine.png", "o.png"], "text.png: found 10 bytes, expected a head"),
        (
            "caption",
            ["segment.safetensors", "fine.png", "o.png"],
            "segment.safetensors: found a network from (1, 16, 24) to (5, 16, 24), expected one "
            "that says sentences",
        ),
        (
            "caption",
            ["coloured.safetensors", "fine.png", "o.png"],
            "found a network that reads (3, 16, 16), expected grey pictures",
        ),
        (
            "segment",
            ["caption.safetensors", "fine.png", "o.png"],
            "caption.safetensors: found a network from (1, 16, 16) to (5, 4), expected one with a "
            "class for each pixel",
        ),
        (
            "segment",
            ["nameless.safetensors", "fine.png", "o.png"],
            "nameless.safetensors: found outputs without names",
        ),
        ("segment", ["segment.safetensors", "..", "o.png"], "..: cannot be read (Is a directory)"),
        (
            "detect",
            ["caption.safetensors", "fine.png", "o.png"],
            "caption.safetensors/trunk.safetensors: found no file, expected MODEL to be a folder",
        ),
        (
            "detect",
            [".", "fine.png", "o.png"],
            "network.safetensors: found another network",
        ),
    ],
)
def test_what_cannot_be_used_is_one_line(folder, capsys, monkeypatch, script, arguments, expected):
    code, printed, wrong = told(script, folder, capsys, monkeypatch, *arguments)
    assert (code, printed, len(wrong)) == (2, [], 1)
    assert wrong[0].startswith(f"distnet: error: {expected}")
    assert not (folder / "o.png").exists()


def test_there_is_a_colour_for_every_class():
    colours = colours_of(40, DIGIT_COLOURS)
    np.testing.assert_array_equal(colours[:11], DIGIT_COLOURS)
    assert len(np.unique(colours, axis=0)) == 40
    assert len(colours_of(3, DIGIT_COLOURS)) >= 3
