"""One flipped bit on one rank is found, named and repaired, or ends the job."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import numpy as np
import pytest

from distnet.models import TwoLayerNet
from distnet.parallel import Communicator
from distnet.train import train
from distnet.training.step.replicas import ReplicasDiffer, same_everywhere, verify
from distnet.training.step.result import StepResult
from distnet.training.step.trainer import Trainer


def state() -> dict[str, np.ndarray]:
    network = TwoLayerNet((1, 4, 4), hidden_size=5)
    return {**network.parameters.named(), "m of linear1.weight": np.arange(3, dtype=np.float64)}


def flip(array: np.ndarray, bit: int = 0) -> None:
    array.reshape(-1).view(np.uint8)[-1] ^= 1 << bit


@pytest.mark.mpi(min_size=3)
def test_equal_replicas_are_equal(comm):
    assert verify(comm, state()) == ""


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_any_bit_on_any_rank_is_found_and_repaired(comm, victim, bit):
    arrays, expected = state(), state()
    if comm.rank == victim:
        flip(arrays["linear2.weight"], bit)
    assert f"linear2.weight on rank {victim};" in verify(comm, arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, expected[name])
    assert verify(comm, arrays) == ""


@pytest.mark.mpi(min_size=3)
def test_all_that_differs_is_named(comm):
    arrays = state()
    if comm.rank == 1:
        flip(arrays["m of linear1.weight"])
        flip(arrays["linear1.bias"])
        flip(arrays["linear2.bias"])
    assert "differed: linear1.bias and 2 more on rank 1; taken from rank 0" in verify(comm, arrays)


@pytest.mark.mpi(min_size=3)
def test_without_a_majority_all_ranks_give_up_alike(comm):
    arrays = state()
    flip(arrays["linear1.bias"], bit=comm.rank)
    message = "compared with rank 0: linear1.bias on ranks 1, 2; no majority of the 3 ranks"
    with pytest.raises(ReplicasDiffer, match=re.escape(message)):
        verify(comm, arrays)


@pytest.mark.mpi(min_size=2)
def test_one_of_two_ranks_is_no_majority(comm):
    arrays = state()
    if comm.rank == 1:
        flip(arrays["linear1.bias"])
    with pytest.raises(ReplicasDiffer, match=r"linear1\.bias on rank 1; no majority of the 2"):
        verify(comm, arrays)


@pytest.mark.mpi(min_size=3)
def test_sameness_is_decided_alike_on_all_ranks(comm: Communicator):
    """Every byte of the hash counts, whichever rank has the higher one."""
    for byte in range(32):
        digest = bytearray(32)
        digest[byte] = 128 if comm.rank == byte % 3 else 0
        assert not same_everywhere(comm, bytes(digest))
    assert same_everywhere(comm, bytes(range(32)))


def test_a_process_on_its_own_has_nothing_to_compare(comm):
    assert verify(comm, state()) == ""


@pytest.mark.mpi(min_size=3)
def test_a_run_with_a_flipped_bit_goes_on_and_tells(comm, tmp_path, monkeypatch, capsys):
    """Found before the next step, it leaves no trace in the result."""
    step = Trainer.step
    broken = False

    def faulty(trainer: Trainer, number: int, *arguments: Any) -> StepResult:
        result = step(trainer, number, *arguments)
        if broken and number == 2 and comm.rank == 1:
            flip(trainer.optimizer.state["v"], bit=3)
        return result

    monkeypatch.setattr(Trainer, "step", faulty)
    out = comm.allgather(tmp_path)[0]
    hashes = []
    for broken in (False, True):
        flags = f"train --model two_layer --steps 4 --verify-every 1 --out {out / str(broken)}"
        monkeypatch.setattr(sys, "argv", flags.split())
        assert train(comm) == 0
        hashes.append(json.loads((out / str(broken) / "summary.json").read_text())["params_sha256"])
    assert hashes[0] == hashes[1]
    if comm.rank == 0:
        where = "optimizer.v.linear2.bias on rank 1"
        what = f"step 3: the state of a minority of the ranks differed: {where}"
        assert capsys.readouterr().err.startswith(f"distnet: warning: {what}; taken from rank 0")
        lines = map(json.loads, (out / "True" / "metrics.jsonl").read_text().splitlines())
        assert [line["step"] for line in lines if line["event"] == "repaired"] == [3]
