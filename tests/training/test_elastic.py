"""A loss at any point of a run, one point after the other; `tests.chaos` kills real ranks."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import training_runs

from distnet.parallel import RankLost, SerialCommunicator
from distnet.train import train
from distnet.training import run as run_module

STEPS = 7  # an epoch and a part of the next one


class LosingCommunicator(SerialCommunicator):
    """Raises RankLost in the calls with these numbers, counted from 0, whatever they are."""

    def __init__(self, losses=()) -> None:
        super().__init__()
        self.losses, self.num_calls, self.num_repairs = set(losses), 0, 0

    def _call(self):
        self.num_calls += 1
        if self.num_calls - 1 in self.losses:
            raise RankLost("a test")

    def allreduce(self, array, op="sum"):
        self._call()

    def iallreduce(self, array, op="sum"):
        self._call()
        return super().iallreduce(array, op)

    def broadcast(self, array, root=0):
        self._call()

    def allgather(self, value):
        self._call()
        return [value]

    def barrier(self):
        self._call()

    def confirm(self):
        self._call()

    def repair(self):
        self._call()
        self.num_repairs += 1
        return []


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return training_runs.write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture
def train_on(digits, tmp_path, monkeypatch):
    """`train_on(comm, name)` trains; returns the hash of the parameters and what metrics say."""

    def run(comm, name, *args):
        out = tmp_path / name
        options = ["--model", "two_layer", "--steps", str(STEPS), *training_runs.SIZES]
        options += ["--log-every", "1", "--checkpoint-every", "3", "--no-progress", *args]
        argv = ["train", *options, "--data-dir", str(digits), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", argv)
        assert train(comm) == 0
        summary = json.loads((out / "summary.json").read_text())
        lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        told = [(line["event"], line["step"], line.get("loss")) for line in lines]
        return summary["params_sha256"], told

    return run


LOCAL = ("--sync", "local", "--islands", "3", "--sync-every", "2")


@pytest.mark.parametrize("sync", [(), LOCAL], ids=["step", "local"])
def test_a_loss_in_any_call_changes_nothing(train_on, sync):
    whole = LosingCommunicator()
    expected = train_on(whole, "whole", *sync)
    assert whole.num_calls > 20
    for call in range(whole.num_calls):
        comm = LosingCommunicator([call])
        assert train_on(comm, f"loss-{call}", *sync) == expected, f"call {call}"
        assert comm.num_repairs == 1


def test_a_loss_during_recovery_changes_nothing(train_on):
    expected = train_on(SerialCommunicator(), "whole")
    for later in range(1, 7):
        comm = LosingCommunicator([20, 20 + later])
        assert train_on(comm, f"loss-{later}") == expected, f"{later} calls later"


class BehindCommunicator(LosingCommunicator):
    """After its loss it is rank 0 of 2; rank 1 is a step ahead, with the state of `ahead`."""

    ahead = None

    def allgather(self, value):
        if self.ahead is None or not self.num_repairs:
            return super().allgather(value)
        if isinstance(value, int):
            return [value, self.ahead[0]]
        if isinstance(value, tuple) and len(value) == 3:
            return [value, self.ahead[:3]]
        return [value]

    def broadcast(self, array, root=0):
        assert root == 1
        np.copyto(array, self.vectors.pop(0))


def test_the_state_of_a_survivor_that_is_ahead_is_adopted(train_on, monkeypatch):
    states = []
    after = run_module.Run._after

    def record(self, result):
        arrays = [array.copy() for array in self.trainer.state().values()]
        states.append(((self.num_done, self.latest, self.record), arrays))
        after(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(run_module.Run, "_after", record)
        whole = LosingCommunicator()
        expected = train_on(whole, "whole")

    steps = []
    step = run_module.Trainer.step
    monkeypatch.setattr(
        run_module.Trainer, "step", lambda self, n, stop: steps.append(n) or step(self, n, stop)
    )
    comm = BehindCommunicator()
    comm.ahead, comm.vectors = states[3]
    comm.vectors = list(comm.vectors)
    lose_at_step(comm, 3)
    assert train_on(comm, "behind") == expected
    assert comm.num_repairs == 1
    assert steps == [0, 1, 2, 3, 4, 5, 6]  # number 3 was interrupted, and not made again
    assert comm.vectors == []


def lose_at_step(comm, step):
    """The next call after the beginning of `step` fails."""
    begin = comm.position.begin_step

    def begin_and_lose(number):
        begin(number)
        if number == step and not comm.num_repairs:
            comm.losses.add(comm.num_calls)

    comm.position.begin_step = begin_and_lose
