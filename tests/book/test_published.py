"""The experiments with the book's own weights, on files made in their format."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load
from distnet.models import DeepConvNet, SimpleConvNet
from distnet.parallel import RankError, SerialCommunicator

BOOK = Path(__file__).resolve().parents[2] / "docs" / "book"
NUM_DIGITS = 200


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """With a copy of the book's repository, and few digits."""
    lab = Lab(SerialCommunicator(), tmp_path / "out", weights=tmp_path)
    few = [(images[:NUM_DIGITS], labels[:NUM_DIGITS]) for images, labels in lab.digits]
    monkeypatch.setattr(Lab, "digits", few)
    return lab


def publish(lab, network, name):
    """Writes the parameters of `network` as the book does; returns the beginning of the SHA-256."""
    values = network.parameters.named()
    layers = dict.fromkeys(key.split(".")[0] for key in values)
    arrays = {}
    for i, layer in enumerate(layers, 1):
        arrays[f"W{i}"], arrays[f"b{i}"] = values[f"{layer}.weight"], values[f"{layer}.bias"]
    content = pickle.dumps(arrays, 4)
    (lab.weights / name).parent.mkdir()
    (lab.weights / name).write_bytes(content)
    return hashlib.sha256(content).hexdigest()[:8]


def predictions(lab, network):
    images, labels = lab.digits[1]
    return network.predict(images / 255).argmax(axis=1), labels


def test_simple_convnet(lab, monkeypatch):
    script = load(BOOK / "ch07" / "published_simple_convnet.py")
    network = SimpleConvNet(dtype=np.float64, seed=1)
    sha256 = publish(lab, network, script.PUBLISHED)
    with pytest.raises(RankError, match=rf"params\.pkl: found SHA-256 {sha256}"):
        script.run(lab)
    predicted, labels = predictions(lab, network)
    for offset, holds in ((0, True), (0.005, False)):
        accuracies = {sha256: np.mean(predicted == labels) + offset}
        monkeypatch.setattr(script, "ACCURACIES", accuracies)
        verdicts = [lab.judge(required, script.run(lab)) for required in script.REQUIRED]
        assert [verdict.holds for verdict in verdicts] == [holds]


def test_deep_convnet(lab, monkeypatch):
    script = load(BOOK / "ch08" / "published_deep_convnet.py")
    network = DeepConvNet(dtype=np.float64, seed=1)
    sha256 = publish(lab, network, script.PUBLISHED)
    with pytest.raises(RankError, match=rf"params\.pkl: found SHA-256 {sha256}"):
        script.run(lab)
    predicted, labels = predictions(lab, network)
    wrong = np.flatnonzero(predicted != labels)
    first = [(int(i), int(labels[i]), int(predicted[i])) for i in wrong[:20]]
    for known, holds in (
        ((len(wrong), first), [True, True]),
        ((len(wrong) + 1, [(0, 0, 0), *first[1:]]), [False, False]),
    ):
        monkeypatch.setattr(script, "WRONG", {sha256: known})
        numbers = script.run(lab)
        assert [lab.judge(required, numbers).holds for required in script.REQUIRED] == holds


@pytest.mark.parametrize("name", ["ch07/published_simple_convnet", "ch08/published_deep_convnet"])
def test_without_the_file_nothing_is_judged(lab, name):
    script = load(BOOK / f"{name}.py")
    numbers = script.run(lab)
    assert {lab.judge(required, numbers).holds for required in script.REQUIRED} == {None}
