"""Where two runs part is found to the element, and the cause is named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training_runs import write_digits

import distnet
from distnet.compare import main
from distnet.parallel import SerialCommunicator
from distnet.train import train
from distnet.training.files import checkpoint
from distnet.training.files.checkpoint_directory import checkpoint_path
from distnet.training.watching.step_hashes import chained

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
    assert main([str(one), str(other), "--rerun", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rerun"] is None, "there is nothing to find"


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


HASHES = ("--hash-every", "2", "--checkpoint-every", "5")


def test_hashes_tell_the_step_and_a_checkpoint_after_it_the_array(run, capsys):
    one, other = run("one", *HASHES), run("other", *HASHES, "--lr", "0.01")
    capsys.readouterr()
    assert main([str(one), str(other)]) == 1
    first, then, array, *_, cause, hint = capsys.readouterr().out.splitlines()
    assert first == "different after step 2 (4 steps of 2 to 6 in both)"
    assert then == "after step 5, of which both have a checkpoint:"
    assert array.startswith("params.linear1.weight[")
    assert cause == "likely cause: option lr: 0.004 and 0.01"
    assert hint.endswith(f"distnet compare {one} {other} --rerun")


def test_hashes_alone_are_enough(run, capsys):
    runs = [run("one", *HASHES), run("other", *HASHES), run("third", *HASHES, "--seed", "1")]
    for path in runs:
        shutil.rmtree(path / "checkpoints")
    capsys.readouterr()
    one, other, third = map(str, runs)
    assert main([one, other]) == 0
    assert capsys.readouterr().out == "the same bits after step 6 (3 steps of 2 to 6 compared)\n"
    assert main([one, third]) == 1
    assert capsys.readouterr().out.startswith("different after step 2 (3 steps of 2 to 6 in both)")


def test_a_chain_that_was_tampered_with_and_a_checkpoint_that_is_not_its_state(run, capsys):
    one, other = run("one", "--hash-every", "1"), run("other", "--hash-every", "1")
    flip(other, 6, "params.linear2.bias", (0,))
    metrics = one / "metrics.jsonl"
    lines = [line for line in metrics.read_text().splitlines() if '"hash", "step": 3' not in line]
    metrics.write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert main([str(one), str(other)]) == 0
    chain, state, same = capsys.readouterr().out.splitlines()
    assert chain.startswith(f"{one}: the chain of step hashes is broken at step 4: ")
    assert state.startswith(f"{other}: the checkpoint of step 6 is not the state whose hash is")
    assert same.startswith("the same bits after step 6")


@pytest.mark.parametrize(
    ("flags", "first"),
    [
        (("--lr", "0.01"), "the update: samples, outputs and gradients are the same"),
        (("--seed", "1", "--validation", "0.1"), "the samples of micro-batch 0"),
        (("--label-smoothing", "0.1"), "the gradient of linear2.bias in micro-batch 0"),
        (("--augment-flip",), "the input in micro-batch 0"),
        (("--batch-size", "16"), "the gradient of linear2.bias in micro-batch 0"),
        (("--freeze", "linear1"), "the gradient of linear1.bias beside nothing in micro-batch 0"),
    ],
)
def test_a_rerun_finds_the_part_of_the_step(run, capsys, flags, first):
    one, other = run("one", *HASHES), run("other", *HASHES, *flags)
    capsys.readouterr()
    assert main([str(one), str(other), "--rerun", "--json"]) == 1
    again = json.loads(capsys.readouterr().out)["rerun"]
    assert (again["start"], again["stop"], again["parted"]) == (0, 1, 1)
    assert again["within"] == first
    assert again["arrays"][0]["name"] == "params.linear1.weight"


def test_a_rerun_goes_on_from_the_last_common_checkpoint(run, capsys):
    """With the learning rate cut after three steps, and after four."""
    flags = ("--checkpoint-every", "3", "--schedule", "step", "--milestones")
    one, other = run("one", *flags, "0.5", "0.99"), run("other", *flags, "0.7", "0.99")
    capsys.readouterr()
    assert main([str(one), str(other), "--rerun"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the same after step 3, different after step 5 (3 steps of 3 to 6 in both)"
    at = lines.index("run again here, in one process, from step 3 to step 4:")
    assert lines[at + 1].startswith("different after step 4; in it, first: the update")
    assert lines[at + 2].startswith("params.linear1.weight[")


def test_a_rerun_goes_on_from_checkpoints_of_an_earlier_version(run, capsys):
    """They do not know an option that came later: they were computed as it is by default."""
    flags = ("--checkpoint-every", "3", "--schedule", "step", "--milestones")
    runs = run("one", *flags, "0.5"), run("other", *flags, "0.99")
    for out in runs:
        path = checkpoint_path(out / "checkpoints", 3)
        found = checkpoint.load(path)
        config = {name: value for name, value in found.config.items() if name != "freeze"}
        assert len(config) == len(found.config) - 1
        checkpoint.save(path, replace(found, config=config))
    capsys.readouterr()
    assert main([*map(str, runs), "--rerun"]) == 1
    assert "run again here, in one process, from step 3 to " in capsys.readouterr().out


def test_a_rerun_tells_which_of_two_equal_configurations_has_gone_astray(run, capsys):
    one, other = run("one", "--hash-every", "1"), run("other", "--hash-every", "1")
    metrics = other / "metrics.jsonl"
    before = ""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        if line["event"] == "hash":
            if line["step"] >= 4:  # as after an error in memory during step 4
                line["state"] = line["state"][::-1]
            before = line["chain"] = chained(before, line["state"])
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert main([str(one), str(other), "--rerun"]) == 1
    found = capsys.readouterr().out.splitlines()
    assert found[0].startswith(f"{other}: the checkpoint of step 6 is not the state whose hash")
    assert found[1] == "the same after step 3, different after step 4 (6 steps of 1 to 6 in both)"
    assert found[-4:-1] == [
        "run again here, in one process, from step 3 to step 4:",
        "the same bits: their configurations are not the cause",
        f"{one}: as it was recorded (1 state checked)",
    ]
    assert found[-1].startswith(f"{other}: the state after step 4 is not what was recorded: ")


def test_a_rerun_needs_the_same_data_again(run, data_dir, tmp_path, capsys):
    shutil.copytree(data_dir, tmp_path / "copy")
    flags = ("--data-dir", str(tmp_path / "copy"), "--schedule", "step", "--milestones", "0.5")
    one, other = run("one", *flags), run("other", *flags, "--gamma", "0.2")
    capsys.readouterr()
    labels = next((tmp_path / "copy").glob("train-labels*"))
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.write_bytes(content)
    assert main([str(one), str(other), "--rerun"]) == 2
    assert "data_sha256: found" in capsys.readouterr().err
    (other / "config.toml").unlink()
    assert main([str(one), str(other), "--rerun"]) == 2


def test_unlike_optimizers_are_compared(run, capsys):
    one, other = run("one"), run("other", "--optimizer", "sgd")
    capsys.readouterr()
    assert main([str(one), str(other)]) == 1
    assert "likely cause: option optimizer: 'adam' and 'sgd'" in capsys.readouterr().out


def test_an_average_that_only_one_keeps_is_a_difference(run, capsys):
    one, other = run("one", *HASHES), run("other", *HASHES, "--ema", "0.9")
    capsys.readouterr()
    assert main([str(one), str(other), "--rerun", "--json"]) == 1
    again = json.loads(capsys.readouterr().out)["rerun"]
    assert again["parted"] == 1
    assert again["within"].endswith(", which only one of them keeps")
    assert "average" in again["within"]


@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
def test_model_files_are_compared_by_their_numbers(run, tmp_path, capsys, storage):
    network, path = distnet.load(run("one")), tmp_path / "small.safetensors"
    distnet.save(network, tmp_path / "full.safetensors")
    distnet.save(network, path, storage=storage)
    distnet.save(distnet.load(path), tmp_path / "rounded.safetensors")
    capsys.readouterr()
    assert main([str(path), str(tmp_path / "rounded.safetensors")]) == 0
    assert main([str(path), str(tmp_path / "full.safetensors")]) == 1
    assert "params.linear1.weight[" in capsys.readouterr().out


def test_two_checkpoints_are_compared_as_well(run, capsys):
    out = run("one")
    first, second = (str(checkpoint_path(out / "checkpoints", step)) for step in (2, 3))
    assert main([first, first]) == 0
    capsys.readouterr()
    assert main([first, second]) == 2
    assert "found no step of which both" in capsys.readouterr().err


def test_two_checkpoints_alone_cannot_be_made_again_and_nobody_is_told_to(run, capsys):
    one, other = run("one"), run("other", "--lr", "0.01")
    capsys.readouterr()
    paths = [str(path / "checkpoints" / "step-00000006.safetensors") for path in (one, other)]
    assert main(paths) == 1
    said = capsys.readouterr().out
    assert "likely cause: option lr: 0.004 and 0.01" in said and "--rerun" not in said


def test_what_is_no_run(tmp_path, capsys):
    assert main([str(tmp_path / "none"), str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distnet: error: ")


def test_a_rerun_of_islands_goes_from_one_meeting_to_the_next(run, capsys):
    flags = ("--sync", "local", "--islands", "2", "--sync-every", "2", "--hash-every", "1")
    one, other = run("one", *flags), run("other", *flags, "--seed", "1")
    capsys.readouterr()
    assert main([str(one), str(other), "--rerun", "--json"]) == 1
    again = json.loads(capsys.readouterr().out)["rerun"]
    assert (again["start"], again["parted"]) == (0, 2)
    assert again["within"] == "the steps of the islands"
    assert (again["checked"], again["strayed"]) == ([1, 1], [None, None])
    third = run("third", *flags[:-4], "--sync-every", "3", "--hash-every", "1")
    capsys.readouterr()
    assert main([str(one), str(third), "--rerun"]) == 2
    assert "expected the same" in capsys.readouterr().err
