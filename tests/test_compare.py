"""Where two runs part is found to the element, and the cause is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_runs import write_digits

from distnet.compare import main
from distnet.parallel import SerialCommunicator
from distnet.train import train
from distnet.training import checkpoint
from distnet.training.checkpoint import checkpoint_path

FLAGS = "--model two_layer --batch-size 50 --micro-batch-size 16 --steps 6 --checkpoint-every 1"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def run(data_dir, tmp_path):
    """`run(name, *flags)` trains and returns the run's directory."""

    def trained(name: str, *flags: str) -> Path:
        out = tmp_path / name
        argv = [*FLAGS.split(), "--keep", "0", "--no-progress"]
        argv += ["--data-dir", str(data_dir), "--out", str(out), *flags]
        assert train(SerialCommunicator(), argv) == 0
        return out

    return trained


def flip(run: Path, step: int, name: str, index: tuple[int, ...]) -> float:
    """Changes the last bit of one number in a checkpoint; returns the number before."""
    path = checkpoint_path(run / "checkpoints", step)
    found = checkpoint.load(path)
    state = {key: array.copy() for key, array in found.state.items()}
    value = float(state[name][index])
    state[name].view(np.uint32)[index] ^= 1
    checkpoint.save(path, replace(found, state=state))
    return value


def test_equal_runs(run, capsys):
    one, other = run("one"), run("other")
    capsys.readouterr()
    assert main([str(one), str(other)]) == 0
    assert capsys.readouterr().out == "the same bits after step 6 (6 steps of 1 to 6 compared)\n"


def test_the_first_step_array_and_element(run, capsys):
    one, other = run("one"), run("other")
    value = flip(other, 4, "params.linear1.bias", (7,))
    flip(other, 5, "params.linear1.weight", (2, 3))
    capsys.readouterr()
    assert main([str(one), str(other)]) == 1
    first, element, cause = capsys.readouterr().out.splitlines()
    assert first == "the same after step 3, different after step 4 (6 steps of 1 to 6 in both)"
    assert element.startswith(f"params.linear1.bias[7] is {value!r} and ")
    assert "; 1 of 50 elements differ" in element
    assert cause.startswith("configuration, data and kernels are the same")


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--seed", "1"), "likely cause: option seed: 0 and 1"),
        (("--lr", "0.01"), "likely cause: option lr: 0.004 and 0.01"),
        (("--reduction", "float32"), "likely cause: reduction float32: its sums depend on"),
    ],
)
def test_an_option_is_named_as_the_cause(run, capsys, flags, cause):
    one, other = run("one"), run("other", *flags)
    capsys.readouterr()
    assert main([str(one), str(other)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "different after step 1 (6 steps of 1 to 6 in both)"
    assert lines[1].startswith("params.linear1.weight[")
    assert any(line.startswith(cause) for line in lines)


def test_parameters_come_in_forward_order(run, capsys):
    one, other = run("one"), run("other", "--seed", "1")
    capsys.readouterr()
    assert main([str(one), str(other), "--json"]) == 1
    names = [array["name"] for array in json.loads(capsys.readouterr().out)["arrays"]]
    parts = [f"linear{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")]
    assert names[:4] == [f"params.{part}" for part in parts]


def test_two_checkpoints_are_compared_as_well(run, capsys):
    out = run("one")
    first, second = (str(checkpoint_path(out / "checkpoints", step)) for step in (2, 3))
    assert main([first, first]) == 0
    capsys.readouterr()
    assert main([first, second]) == 2
    assert "found no step of which both" in capsys.readouterr().err


def test_what_is_no_run(tmp_path, capsys):
    assert main([str(tmp_path / "none"), str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distnet: error: ")
