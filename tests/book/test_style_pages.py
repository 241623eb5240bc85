"""Section 8.5.1: the pictures and patches, the trained networks, what is painted on any ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distnet
from distnet.base.errors import DataError
from distnet.experiments import load
from distnet.parallel import SerialCommunicator
from distnet.training.files.model_file import load as load_network

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08"

textures = load(CHAPTER / "textures.py")
painting = load(CHAPTER / "painting.py")
paint = load(CHAPTER / "paint.py")
style_transfer = load(CHAPTER / "style_transfer.py")


def test_every_picture_lies_in_the_wheel():
    assert [name for name in textures.FILES if not textures.file_of(name).is_file()] == []


def test_without_scikit_image_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(textures, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'distnet-mpi\[photographs\]'"):
        textures.photograph("coffee", (8, 8))


def test_patches_are_of_all_pictures_and_those_for_the_test_are_others():
    images, labels = textures.patches(30, 4)
    assert images.shape == (30, 3, 32, 32) and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, [*range(15)] * 2)
    np.testing.assert_array_equal(textures.patches(30, 4).inputs, images)
    others = [textures.patches(30, 5), textures.patches(30, 4, for_test=True)]
    assert all((each.inputs != images).any(axis=(1, 2, 3)).sum() > 25 for each in others)


def test_the_middle_of_a_picture(tmp_path):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40, 30:50] = 255
    Image.fromarray(pixels).save(tmp_path / "square.png")
    whole = textures.middle_of(tmp_path / "square.png", (30, 40))
    assert whole.shape == (3, 30, 40)
    assert whole[:, 15, 20].min() > 250 and whole[:, 2, 2].max() < 5
    near = textures.middle_of(tmp_path / "square.png", (20, 20), part=1 / 3)
    assert near.mean() > 250


@pytest.mark.parametrize("path", style_transfer.NETWORKS, ids=lambda p: p.stem)
def test_the_networks_of_the_page_know_patches_they_have_not_seen(path):
    network = load_network(path)
    assert network.classes == tuple(textures.FILES)
    images, labels = textures.patches(300, 17, for_test=True)
    assert np.mean(network.predict(images).argmax(axis=1) == labels) > 0.6


def test_measures_of_the_content_and_of_the_style_themselves():
    network = load_network(style_transfer.JUDGE)
    content, style = (textures.photograph(name, (24, 32)) for name in ("coffee", "gravel"))
    same = style_transfer.measures(network, content, style, content / np.float32(255))
    assert same == pytest.approx((1, 0, 1))
    nearly = 0.01 + 0.98 * (style / np.float32(255))
    other = style_transfer.measures(network, content, style, nearly)
    assert other.content == pytest.approx(1, abs=0.1) and other.fall > 100


def test_the_seed_says_which_network_judges_and_none_does_both():
    hashes = [
        [network.parameters.sha256() for network in style_transfer.roles(seed)] for seed in range(3)
    ]
    assert len(set(hashes[0])) == 3
    assert hashes[1] == hashes[0][1:] + hashes[0][:1]
    assert hashes[2] == hashes[1][1:] + hashes[1][:1]


def test_the_weight_at_which_so_much_is_lost():
    weights, contents = (0.5, 1.0, 2.0, 4.0), [0.1, 0.3, 0.5, 0.9]
    assert style_transfer.weight_for(0.3, weights, contents) == pytest.approx(1)
    assert style_transfer.weight_for(0.4, weights, contents) == pytest.approx(2**0.5)
    assert style_transfer.weight_for(0.95, weights, contents) == pytest.approx(4)
    assert style_transfer.weight_for(0.05, weights, contents) == pytest.approx(0.5)


def test_pictures_beside_each_other(tmp_path):
    black, white = np.zeros((3, 4, 5), np.uint8), np.full((3, 4, 5), 255, np.uint8)
    sheet = painting.beside([(black, white), (white, black)])
    assert sheet.shape == (3, 4 + 6 + 4, 5 + 6 + 5)
    assert sheet.sum() == sheet.size - 2 * black.size
    painting.write(tmp_path / "new" / "sheet.png", sheet, enlarged=2)
    with Image.open(tmp_path / "new" / "sheet.png") as image:
        assert image.size == (32, 28)


@pytest.mark.mpi(min_size=2)
def test_two_ranks_paint_the_same_pictures(comm):
    eyes = [load_network(path) for path in painting.EYES]
    contents = np.stack([textures.photograph(name, (24, 32)) for name in ("coffee", "chelsea")])
    styles = [textures.photograph(name, (24, 24)) for name in ("gravel", "immunohistochemistry")]
    for tile in (None, 24):
        alone, shared = (
            painting.painted_by(eyes, contents, styles, steps=4, tile=tile, comm=ranks)
            for ranks in (SerialCommunicator(), comm)
        )
        np.testing.assert_array_equal(alone[0], shared[0])
        assert alone[1] == shared[1]
        assert alone[0].shape == contents.shape
        assert alone[1].losses[-1] < alone[1].losses[0]


def test_a_picture_of_ones_own_is_painted(tmp_path):
    rng = np.random.default_rng(0)
    for name, shape in (("photo", (60, 90, 3)), ("style", (50, 40, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / f"{name}.png")
    files = [tmp_path / name for name in ("photo.png", "style.png", "out.png")]
    size = ["--height", "32", "--width", "48", "--steps", "3", "--part", "0.8"]
    command = [sys.executable, CHAPTER / "paint.py", *files, *size]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1].startswith(f"wrote {files[-1]}, from pixels with params_sha256 ")
    with Image.open(files[-1]) as image:
        assert image.size == (48, 32)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["missing.png", "style.png", "o.png"], "missing.png: cannot be read (No such file"),
        (["style.png", "text.png", "o.png"], "text.png: cannot be read (it is none of"),
        (["style.png", "style.png", "o.xyz"], "o.xyz: cannot be written, expected a file .png"),
        (["style.png", "style.png", "o.png", "--height", "3"], "--height: found 3, expected"),
        (["style.png", "style.png", "o.png", "--part", "0"], "--part: found 0.0, expected"),
    ],
)
def test_what_cannot_be_painted_is_one_line(tmp_path, monkeypatch, capsys, arguments, expected):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "style.png")
    (tmp_path / "text.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["paint.py", *arguments])
    with pytest.raises(SystemExit) as exit:
        distnet.run(paint.main)
    assert exit.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"distnet: error: {expected}")
