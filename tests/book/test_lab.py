"""The lab of the book: requirements that judge, numbers and pictures alike on any ranks."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import launching
import numpy as np
import pytest

import distnet
from distnet.experiments import Lab, Required, at_least, at_most, between, exactly, load, near
from distnet.models import ThreeLayerNet
from distnet.parallel import RankError, SerialCommunicator

BOOK = Path(__file__).resolve().parents[2] / "docs" / "book"
SCRIPT = BOOK / "ch04" / "train_two_layer_net.py"


@pytest.fixture
def lab(tmp_path):
    return Lab(SerialCommunicator(), tmp_path, quick=True)


@pytest.mark.parametrize(
    ("bound", "good", "bad"),
    [
        (at_least(2), [2, 3.5, np.inf], [1.999, np.nan]),
        (at_most(2), [2, -3], [2.001, np.nan]),
        (between(1, 2), [1, 2, [1, 1.5]], [0.9, 2.1, [1, 2.5]]),
        (near(1, 0.1), [0.95, 1.05], [0.8, 1.2, np.nan, None]),
        (near([[1, 2]], 0.1), [[[1, 2.05]]], [[[1, 2.2]], [1, 2], [[1, 2], [1, 2]], 1]),
        (exactly([0, 1]), [[0, 1], np.array([0, 1], np.uint8)], [[1, 0], [0, 1, 1], [0]]),
        (exactly(0.9352), [0.9352, 9352 / 10000], [0.93521]),
    ],
)
def test_bounds(bound, good, bad):
    assert all(bound.holds(value) for value in good)
    assert not any(bound.holds(value) for value in bad)


def test_a_quick_run_is_judged_by_its_own_bound(tmp_path):
    required = Required("A0", "what", "x", at_least(10), quick=at_least(1))
    full, quick = (Lab(SerialCommunicator(), tmp_path, quick=q) for q in (False, True))
    assert full.judge(required, {"x": 10}).holds is True
    assert full.judge(required, {"x": 5}).holds is False
    assert quick.judge(required, {"x": 5}).holds is True
    assert "FAILED" in str(full.judge(required, {"x": 5}))
    assert ">= 10" in str(full.judge(required, {"x": 5}))


def test_what_would_tell_nothing_is_not_judged_in_a_quick_run(tmp_path):
    required = Required("A0", "what", "x", at_least(10), only_full=True)
    full, quick = (Lab(SerialCommunicator(), tmp_path, quick=q) for q in (False, True))
    assert full.judge(required, {"x": 5}).holds is False
    verdict = quick.judge(required, {"x": 5})
    assert verdict.holds is None
    assert "not run what: not judged in the quick version (required: >= 10)" in str(verdict)


def test_what_needs_published_weights_is_not_judged_without(tmp_path):
    required = Required("A0", "what", "x", at_least(10), needs="ch00/params.pkl")
    without = Lab(SerialCommunicator(), tmp_path)
    with_weights = Lab(SerialCommunicator(), tmp_path, weights=tmp_path)
    assert without.judge(required, {}).holds is None
    assert with_weights.judge(required, {}).holds is None
    (tmp_path / "ch00").mkdir()
    (tmp_path / "ch00" / "params.pkl").touch()
    assert without.judge(required, {}).holds is None
    assert with_weights.judge(required, {"x": 5}).holds is False


def test_numbers_are_plain_json(lab):
    lab.save("name", {"a": np.float32(0.5), "b": np.arange(3), "c": [np.int64(1)], "d": "text"})
    content = json.loads((lab.out / "name.json").read_text())
    assert content == {
        "seed": 0,
        "quick": True,
        "numbers": {"a": 0.5, "b": [0, 1, 2], "c": [1], "d": "text"},
    }
    with pytest.raises(ValueError, match="not JSON compliant"):
        lab.save("name", {"a": float("nan")})
    with pytest.raises(TypeError, match="Path"):
        lab.save("name", {"a": Path("x")})


def test_pictures_are_small_png_files_of_the_size_asked_for(lab):
    lab.picture("curve", lambda figure: figure.subplots().plot([1, 2, 3]), size=(3, 2))
    content = (lab.out / "curve.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (300, 200)
    assert len(content) < 20_000


def test_a_trained_network_is_kept_in_a_file(lab):
    network = ThreeLayerNet(seed=3)
    Lab(lab.comm, lab.out / "new").keep("digits/best", network)
    again = distnet.load(lab.out / "new" / "digits" / "best.safetensors")
    assert again.parameters.sha256() == network.parameters.sha256()


def test_without_matplotlib_there_are_no_pictures(lab, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    lab.picture("curve", lambda figure: pytest.fail("drawn"))
    assert not list(lab.out.iterdir())


def test_a_script_finds_its_neighbours_and_nothing_of_it_stays_on_the_path():
    path = list(sys.path)
    module = load(BOOK / "ch02" / "gates.py")
    assert module.AND.weights == (0.5, 0.5)
    assert sys.path == path


def test_published_weights_are_put_in(tmp_path):
    rng = np.random.default_rng(0)
    sizes = (784, 50, 100, 10)
    arrays = {}
    for i, shape in enumerate(pairwise(sizes), 1):
        arrays[f"W{i}"] = rng.standard_normal(shape).astype(np.float32)
        arrays[f"b{i}"] = rng.standard_normal(shape[1]).astype(np.float32)
    (tmp_path / "sample_weight.pkl").write_bytes(pickle.dumps(arrays))
    lab = Lab(SerialCommunicator(), tmp_path, weights=tmp_path)
    network = ThreeLayerNet()
    sha256 = lab.load_published(network, "sample_weight.pkl")
    assert len(sha256) == 64
    np.testing.assert_array_equal(network.parameters.named()["linear2.weight"], arrays["W2"])
    with pytest.raises(RankError, match=r"other\.pkl"):
        lab.load_published(network, "other.pkl")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "x"], "--seed: found 'x'"),
        (["--fast"], "unknown option '--fast'"),
        (["--out", "/dev/null/x"], "/dev/null/x"),
        (["--weights", "/dev/null/x"], "--weights: found no folder /dev/null/x"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(arguments, message):
    result = run_alone(SCRIPT, *arguments)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("distnet: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_script_on_two_ranks_writes_the_same_bytes(tmp_path, mpirun):
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run_alone(SCRIPT, "--quick", "--out", alone).returncode == 0
    result = mpirun(2, str(SCRIPT), "--quick", "--out", str(together))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("wrote ") == 1
    names = sorted(path.name for path in alone.iterdir())
    assert len(names) == 3
    assert sorted(path.name for path in together.iterdir()) == names
    for name in names:
        assert (alone / name).read_bytes() == (together / name).read_bytes(), name


def run_alone(*command: object) -> subprocess.CompletedProcess[str]:
    root = BOOK.parents[1]
    return launching.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
