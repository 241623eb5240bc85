"""The chain of step hashes: that of any number of ranks and of a resumed run, and checkable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from training_runs import ALONE, SIZES, checkpoint, read_metrics, succeed, write_digits

from distnet.training.files import checkpoint as checkpoints
from distnet.training.watching.step_hashes import Chain, chained, state_sha256

FLAGS = ("--model", "two_layer", "--steps", "9", "--hash-every", "2", "--checkpoint-every", "3")
FLAGS = (*FLAGS, "--keep", "0")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return write_digits(tmp_path_factory.mktemp("digits"))


def hashes(out: Path) -> list[tuple[int, str, str]]:
    found = [line for line in read_metrics(out) if line["event"] == "hash"]
    return [(line["step"], line["state"], line["chain"]) for line in found]


@pytest.mark.mpi_launch
def test_the_chain_is_that_of_any_ranks_and_of_a_resumed_run(data_dir, tmp_path):
    flags = (*FLAGS, *SIZES, "--data-dir", data_dir)
    succeed(ALONE, *flags, "--out", tmp_path / "alone")
    succeed(3, *flags, "--out", tmp_path / "ranks")
    succeed(2, *flags, "--out", tmp_path / "resumed", "--stop-at", "5", code=75)
    first_part = hashes(tmp_path / "resumed")
    succeed(ALONE, *flags, "--out", tmp_path / "resumed", "--resume")
    expected = hashes(tmp_path / "alone")
    assert [step for step, _, _ in expected] == [2, 4, 6, 8]
    assert first_part == expected[:2]
    assert hashes(tmp_path / "ranks") == hashes(tmp_path / "resumed") == expected
    # From its checkpoint alone, elsewhere, the chain goes on as well.
    start = checkpoint(tmp_path / "alone", 3)
    succeed(ALONE, *flags, "--out", tmp_path / "moved", "--resume", start)
    assert hashes(tmp_path / "moved") == expected[1:]
    state = checkpoints.load(checkpoint(tmp_path / "alone", 6)).state
    assert state_sha256(state) == expected[2][1], "a checkpoint has the hash of its step"


def test_the_hash_of_a_state_is_that_of_a_list_as_sha256sum_writes_it():
    state = {"b": np.arange(3, dtype=np.float32), "a": np.arange(4.0).reshape(2, 2).T}
    pieces = [
        f"{hashlib.sha256(np.array([0, 2, 1, 3], '<f8').tobytes()).hexdigest()}  a\n",
        f"{hashlib.sha256(np.array([0, 1, 2], '<f4').tobytes()).hexdigest()}  b\n",
    ]
    expected = hashlib.sha256("".join(pieces).encode()).hexdigest()
    assert state_sha256(state) == expected
    assert state_sha256(dict(reversed(state.items()))) == expected
    assert state_sha256({"c": state["b"], "a": state["a"]}) != expected


def write(path: Path, states: list[str]) -> list[dict[str, object]]:
    chain, lines = "", []
    for step, state in enumerate(states, 1):
        chain = chained(chain, state)
        lines.append({"event": "hash", "step": step, "state": state, "chain": chain})
    return lines


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        (lambda lines: lines, None),
        (lambda lines: lines[1:], None),  # the later part of a run
        (lambda lines: lines[:1] + lines[2:], 3),
        (lambda lines: [lines[0], lines[1] | {"state": "x"}, *lines[2:]], 2),
        (lambda lines: [lines[0], lines[1] | {"chain": "x"}, *lines[2:]], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
    ],
)
def test_a_line_that_was_changed_is_noticed(tmp_path, change, broken):
    lines = change(write(tmp_path / "m", ["s1", "s2", "s3", "s4"]))
    path = tmp_path / "metrics.jsonl"
    others = ['{"event": "train", "step": 1}', "[1]", "}", '{"event": "hash", "step": "x"}']
    path.write_text("\n".join([*others, *map(json.dumps, lines), '{"event": "ha']))
    chain = Chain.read(path)
    assert chain.broken == broken
    assert list(chain.states) == [line["step"] for line in lines]
    assert Chain.read(tmp_path / "none") == Chain({}, None)
