"""The optimizer's vectors shared out: the same bits, whatever the rule, the ranks, the losses."""

from __future__ import annotations

import json
from pathlib import Path

import chaos
import numpy as np
import pytest
import training_runs

from distnet.__main__ import main
from distnet.optim import OPTIMIZERS, Averaged, make_optimizer
from distnet.parallel import Communicator, SerialCommunicator
from distnet.parallel.communicator import Process
from distnet.training.step.sharding import Sharded, SharesLost, cut

SIZE = 1009
SEGMENTS = [(0, 400), (400, 410), (410, 900), (900, SIZE)]


class Ranks(SerialCommunicator):
    """A rank of a group that can lose members; its calls change nothing."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size, self.survives_losses = rank, size, True
        self.processes = [Process(number, "host", 100 + number) for number in range(size)]


def make(name, part=slice(0, SIZE), ema=0.0, start=None, **settings):
    rule = OPTIMIZERS[name]
    inside = [(a - part.start, b - part.start) for a, b in SEGMENTS if part.start <= a < part.stop]
    optimizer = make_optimizer(
        name,
        part.stop - part.start,
        segments=None if rule.elementwise else inside,
        decayed=(np.arange(SIZE) % 3 > 0)[part],
        **settings,
    )
    return Averaged(optimizer, ema, start[part]) if ema else optimizer


def sharded(comm, name, start, **settings):
    made = make(name, **settings, start=start)
    return Sharded(
        comm,
        SIZE,
        lambda part: make(name, part, start=start, **settings),
        segments=None if OPTIMIZERS[name].elementwise else SEGMENTS,
        clip_norm=settings.get("clip_norm", 0.0),
        arithmetic=made.arithmetic,
    )


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1, "clip_norm": 3.0, "ema": 0.5}])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule_gives_the_same_bits(comm: Communicator, name, settings):
    rng = np.random.default_rng(0)
    params = rng.standard_normal(SIZE).astype(np.float32)
    expected = params.copy()
    whole = make(name, **settings, start=params)
    shared = sharded(comm, name, params, **settings)
    for t in range(1, 6):
        grads = rng.standard_normal(SIZE).astype(np.float32)
        whole.step(expected, grads, 0.01, t)
        shared.step(params, grads, 0.01, t)
        np.testing.assert_array_equal(params, expected)
    held = sum(array.size for share in shared.shares for array in share.vectors.values())
    assert sum(comm.allgather(held)) == sum(a.size for a in whole.state.values() if a.size > 1)
    for optimizer, values in ((whole, expected), (shared, params)):
        optimizer.exchange(values)
    np.testing.assert_array_equal(params, expected)
    whole.exchange(expected)
    shared.exchange(params)
    for root in (1, None):
        shared.complete(root)
        if root in (None, comm.rank):
            assert {n: a.tolist() for n, a in shared.state.items()} == {
                n: a.tolist() for n, a in whole.state.items()
            }
    for array in shared.state.values():
        array[...] = 7
    shared.refresh()
    assert all((a == 7).all() for share in shared.shares for a in share.optimizer.state.values())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 2000])
def test_shares_are_even_or_end_where_arrays_do(count):
    even, whole = cut(SIZE, count), cut(SIZE, count, SEGMENTS)
    for cuts in (even, whole):
        assert (cuts[0], cuts[-1], len(cuts)) == (0, SIZE, count + 1) and cuts == sorted(cuts)
    assert max(np.diff(even)) - min(np.diff(even)) <= 1
    assert set(whole) <= {0, *(stop for _, stop in SEGMENTS)}


@pytest.mark.parametrize("lost", [(0,), (3,), (0, 2), (1, 3), (0, 1), (3, 0), (1, 2, 3)])
def test_one_of_two_neighbours_is_enough(lost):
    """Every rank finds alike who tells each share, or that nobody can."""
    start = np.zeros(SIZE, np.float32)
    group = [Ranks(rank, 4) for rank in range(4)]
    optimizers = [sharded(comm, "adam", start) for comm in group]
    survivors = [rank for rank in range(4) if rank not in lost]
    left = [group[0].processes[rank] for rank in survivors]
    for number, rank in enumerate(survivors):
        group[rank].processes = left
        group[rank].rank, group[rank].size = number, len(survivors)
    can_go_on = not any((rank + 1) % 4 in lost for rank in lost)
    for rank in survivors:
        if not can_go_on:
            with pytest.raises(SharesLost, match="go on from the last checkpoint with --resume"):
                optimizers[rank].rebuild(start)
            continue
        sources = optimizers[rank]._sources()
        told = [survivors[source] for source in sources]
        assert all(teller in (share, (share + 1) % 4) for share, teller in enumerate(told))


NAMES = ("alone", "with", "without")
FLAGS = ["--model", "two_layer", *training_runs.SIZES, "--quiet"]


@pytest.mark.parametrize(
    "more",
    [("--optimizer", "lamb", "--ema", "0.9"), ("--arithmetic", "bfloat16", "--clip-norm", "0.1")],
    ids=["lamb", "bfloat16"],
)
def test_runs_and_checkpoints_do_not_show_it(mpirun, tmp_path: Path, more):
    """Started on three ranks with shares, resumed on two without, and the other way round."""
    (tmp_path / "digits").mkdir()
    digits = training_runs.write_digits(tmp_path / "digits")
    flags = [*FLAGS, *more, "--data-dir", str(digits), "--steps", "7", "--hash-every", "2"]
    shard = "--shard-optimizer"

    def run(ranks, name, *own, code=0):
        out = tmp_path / name
        command = ["-m", "distnet.train", *flags, "--out", str(out), *own]
        assert mpirun(ranks, *command).returncode == code
        return out

    assert main(["train", *flags, "--out", str(tmp_path / "alone")]) == 0
    for name, first, then in (("with", [shard], []), ("without", [], [shard])):
        run(3, name, "--stop-at", "4", *first, code=75)
        run(2, name, "--resume", *then)
    files = [sorted((tmp_path / name).glob("checkpoints/step-*7.*")) for name in NAMES]
    assert len({path.read_bytes() for (path,) in files}) == 1
    chains = {_last_chain(tmp_path / name) for name in NAMES}
    assert len(chains) == 1


def _last_chain(out: Path) -> str:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line["chain"] for line in lines if line["event"] == "hash"][-1]


@pytest.mark.mpi_launch
def test_lost_ranks_cost_nothing(tmp_path: Path):
    if not chaos.is_elastic():
        pytest.skip("needs Open MPI 5")
    rounds = chaos.run_rounds(tmp_path, ("kill", "again", "pair"), seed=2, sync="shard")
    assert [result for result in rounds if result.problem] == []


@pytest.mark.mpi_launch
def test_losing_both_owners_of_a_share_ends_the_job_with_one_line(tmp_path: Path):
    if not chaos.is_elastic():
        pytest.skip("needs Open MPI 5")
    job = chaos.Job(tmp_path / "job", supervised=False, sync="shard")
    try:
        job.wait_for_step(20)
        chaos.strike(job.ranks(), [1, 2], chaos.signal.SIGKILL)
        assert job.process.wait(chaos.launching.HUNG_SECONDS) != 0
        assert "a share of the optimizer and its copy are lost" in job.said()
    finally:
        job.clean_up()
    flags = [*chaos.TRAIN, *chaos.SYNC["shard"][1], "--out", str(tmp_path / "job")]
    assert main(["train", *flags, "--resume", "--quiet"]) == 0
    expected = chaos.undisturbed(tmp_path / "alone", "shard")
    summary = json.loads((tmp_path / "job" / "summary.json").read_text())
    assert summary["params_sha256"] == expected
