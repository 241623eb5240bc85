"""Sections 8.4 and 8.5 on pictures: what the experiments share, and what is done to a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import launching
import numpy as np
import pytest
from PIL import Image

import distnet
from distnet.data.scenes import IGNORED
from distnet.experiments import Lab, load
from distnet.models import FCN, NIC
from distnet.models.faster_rcnn import FasterRCNN
from distnet.models.rcnn import RCNN
from distnet.parallel import SerialCommunicator

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08"

segmenting = load(CHAPTER / "segmenting.py")
detecting = load(CHAPTER / "detecting.py")
captioning = load(CHAPTER / "captioning.py")


@pytest.fixture
def lab(tmp_path):
    return Lab(SerialCommunicator(), tmp_path, quick=True)


def is_a_small_picture(path):
    with Image.open(path) as image:
        return image.format == "PNG" and path.stat().st_size < 60_000


def test_digit_scenes_are_padded_with_pixels_that_do_not_count(lab):
    task = segmenting.digits(lab, 1)
    assert task.shape == (1, 64, 88) and len(task.classes) == len(task.colours) == 11
    assert len(task.train.inputs) == 16 and task.steps == 1
    assert (task.train.targets[:, :, 84:] == IGNORED).all()
    assert (task.test.targets[:, :, :84] < 11).all()


def test_pictures_of_masks_and_their_confusion(lab):
    task = segmenting.roads(lab, 1)
    network = FCN(task.shape, len(task.classes))
    matrix = segmenting.confusion(lab, network, task)
    np.testing.assert_array_equal(matrix.sum(axis=1), np.bincount(task.test.targets.ravel()))
    masks = segmenting.masks_of(network, task.test.inputs)
    assert matrix.trace() == (masks == task.test.targets).sum()
    networks = {"a network": network}
    lab.picture("masks", lambda figure: segmenting.draw_masks(figure, task, networks, [0, 1]))
    lab.picture("confusion", lambda figure: segmenting.draw_confusion(figure, matrix, task.classes))
    assert is_a_small_picture(lab.out / "masks.png")
    assert is_a_small_picture(lab.out / "confusion.png")


def run_script(name, *arguments):
    command = [sys.executable, str(CHAPTER / name), *map(str, arguments)]
    return launching.run(command, check=True).stdout


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_of_ones_own_is_segmented(tmp_path, photo):
    network = FCN((3, 16, 24), 3)
    network.classes = "sky", "road", "car"
    distnet.save(network, tmp_path / "model.safetensors")
    out = tmp_path / "masks.png"
    told = run_script("segment_picture.py", tmp_path / "model.safetensors", photo, out)
    assert [line.split()[0] for line in told.splitlines()] == ["sky", "road", "car", "wrote"]
    with Image.open(out) as image:
        assert image.size == (2 * 24 * 6, 16 * 6)


def test_digits_on_light_paper_are_segmented_as_light_ones(tmp_path):
    network = FCN((1, 16, 24), 11)
    network.classes = ("background", *"0123456789")
    distnet.save(network, tmp_path / "model.safetensors")
    ink = np.zeros((16, 24), np.uint8)
    ink[4:12, 10:13] = 255
    told = []
    for name, pixels in (("dark", 255 - ink), ("light", ink)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        files = tmp_path / "model.safetensors", tmp_path / f"{name}.png", tmp_path / "masks.png"
        told.append(run_script("segment_picture.py", *files))
    assert told[0] == told[1]


@pytest.mark.parametrize("make", [RCNN, FasterRCNN])
def test_a_saved_detector_finds_the_same_and_looks_at_a_picture(make, lab, photo):
    detector = make(seed=5)
    detecting.save(lab, detector, "detector")
    again = detecting.load(lab.out / "detector")
    assert again.parameters.sha256() == detector.parameters.sha256()
    _, test = detecting.scenes(lab, 1)
    found, proposed = detecting.detected(lab, detector, test.inputs[:11])
    for before, after in zip(
        found, detecting.detected(lab, again, test.inputs[:11])[0], strict=True
    ):
        np.testing.assert_array_equal(before.boxes, after.boxes)
    figures = detecting.judged(found, proposed, detecting.truth_of(test)[:11], 10)
    assert 0 <= figures["map75"] <= figures["map50"] < 0.2 and figures["recall50"] > 0
    told = run_script("detect_picture.py", lab.out / "detector", photo, lab.out / "found.png")
    assert "wrote " in told and (lab.out / "found.png").exists()


def test_sentences_are_judged_and_drawn(lab):
    task = captioning.relations(lab, 2)
    assert len(task.train.inputs) == 32 and task.length == 9
    network = NIC((1, 40, 40), 18, 9, filters=(4, 4, 8), hidden=8)
    network.classes = captioning.VOCABULARY
    words = captioning.said(lab, network, task.test.inputs)
    assert captioning.judged(words, task.test.targets)["exact"] < 0.2
    right = np.maximum(task.test.targets, 0)
    figures = captioning.judged(right, task.test.targets)
    assert figures["exact"] == figures["bleu4"] == 1 and figures["shuffled"] < 0.1
    right[::2] = words[::2]
    lab.picture("said", lambda figure: captioning.draw_said(figure, task, right))
    lab.picture(
        "looks", lambda figure: captioning.draw_attention(figure, network, task, [0, 3]), (7, 2)
    )
    assert is_a_small_picture(lab.out / "said.png") and is_a_small_picture(lab.out / "looks.png")


def test_a_picture_of_ones_own_is_described(tmp_path, photo):
    network = NIC((1, 40, 40), 18, 9, filters=(4, 4, 8), hidden=8)
    network.classes = captioning.VOCABULARY
    distnet.save(network, tmp_path / "nic.safetensors")
    told = run_script("caption_picture.py", tmp_path / "nic.safetensors", photo, tmp_path / "o.png")
    sentence, wrote = told.splitlines()
    assert set(sentence.strip('"').split()) <= set(captioning.VOCABULARY)
    assert wrote.startswith("wrote ") and (tmp_path / "o.png").exists()


@pytest.mark.mpi(min_size=2)
def test_ranks_share_the_scenes_and_find_the_same(comm, tmp_path):
    detector, found = RCNN(seed=5), []
    for group in (SerialCommunicator(), comm):
        lab = Lab(group, tmp_path, quick=True)
        _, test = detecting.scenes(lab, 1)
        each, proposed = detecting.detected(lab, detector, test.inputs[:20])
        found.append([part.tobytes() for one in each for part in one] + [len(proposed)])
    assert found[0] == found[1]
