"""The trace of a run: every rank, properly nested spans, every phase of every step, one clock."""

from __future__ import annotations

import json
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from training_runs import ALONE, SIZES, own_lines, read_summary, succeed, train, write_digits

from distnet.parallel import SerialCommunicator
from distnet.training.watching import timeline
from distnet.training.watching.timeline import Timeline

STEPS = 6  # more than one epoch, so there is an evaluation between steps
PHASES = {"sampler", "feed", "loss", "to fixed point", "from fixed point", "wait", "optimizer"}


@pytest.fixture
def flags(tmp_path):
    data = write_digits(tmp_path)
    return ["--model", "simple_convnet", *SIZES, "--data-dir", data, "--steps", STEPS]


def nested(spans):
    """Each span as (depth, name), in the order of their begin; fails where two overlap."""
    stack, found = [], []
    for span in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
        end = span["ts"] + span["dur"]
        while stack and stack[-1] <= span["ts"]:
            stack.pop()
        assert not stack or end <= stack[-1] + 1e-3, "spans overlap"  # microseconds
        found.append((len(stack), span["name"]))
        stack.append(end)
    return found


MESSAGES = [f"reduction {number}" for number in range(5)]  # four buckets, the tally


@pytest.mark.mpi_launch
@pytest.mark.parametrize(
    "num_ranks, exchange, bucket_bytes, messages",
    [
        (ALONE, "auto", 1_000_000, MESSAGES),
        (2, "messages", 1_000_000, MESSAGES),
        (2, "auto", 0, ["reduction 0", "barrier"]),  # one host: the tally, all parts are there
    ],
)
def test_the_trace_of_a_run(flags, tmp_path, num_ranks, exchange, bucket_bytes, messages):
    path, out = tmp_path / "trace.json", tmp_path / "out"
    flags += ["--exchange", exchange, "--bucket-bytes", bucket_bytes]
    succeed(num_ranks, *flags, "--timeline", path, "--out", out)
    events = json.loads(path.read_text())["traceEvents"]
    ranks = range(max(num_ranks, 1))
    names = [event for event in events if event["ph"] == "M"]
    assert [event["pid"] for event in names] == list(ranks)
    for rank in ranks:
        own = [event for event in events if event["pid"] == rank]
        check_spans([event for event in own if event["ph"] == "X"])
        check_messages([event for event in own if event["ph"] in "be"], messages)
        if num_ranks > 1 and messages == MESSAGES:
            check_overlap(own)
    steps = [event for event in events if event["name"] == "step 3"]
    latest_begin = max(step["ts"] for step in steps)
    assert latest_begin < min(step["ts"] + step["dur"] for step in steps), "one clock: they overlap"
    succeed(num_ranks, *flags, "--out", tmp_path / "untraced")
    hashes = {read_summary(tmp_path / name)["params_sha256"] for name in ("out", "untraced")}
    assert len(hashes) == 1


def check_spans(spans):
    found = nested(spans)
    top = [name for depth, name in found if depth == 0]
    assert top == [f"step {step}" for step in range(STEPS)], "nothing outside of steps"
    inside = {name for depth, name in found if depth > 0}
    assert inside >= PHASES
    for layer in ("conv1+pool1", "relu1", "linear1", "relu2", "linear2"):
        assert inside >= {f"forward {layer}", f"backward {layer}"}


def check_overlap(events):
    """Messages leave before the first layer runs backward in the last micro-batch."""

    def begins(name):
        return [e["ts"] for e in events if e["ph"] in "bX" and e["name"].startswith(name)]

    computed = begins("backward conv1")
    for sent, stop in zip(begins("reduction 0"), [*begins("step ")[1:], np.inf], strict=True):
        assert sent < max(begin for begin in computed if begin < stop)


def check_messages(events, expected):
    """439,010 parameters; messages leave in order, and each begins and ends once."""
    leaving = sorted((e for e in events if e["ph"] == "b"), key=lambda event: event["ts"])
    names = [event["name"].split(" (")[0] for event in leaving]
    assert names == expected * STEPS
    ends = {event["id"]: event["ts"] for event in events if event["ph"] == "e"}
    begins = {event["id"]: event["ts"] for event in events if event["ph"] == "b"}
    assert begins.keys() == ends.keys()
    assert len(begins) == len(names)
    assert all(begins[key] <= ends[key] for key in begins)


@pytest.mark.mpi_launch
def test_a_file_that_cannot_be_written(flags, tmp_path):
    process = train(2, *flags, "--timeline", tmp_path / "nowhere" / "x", "--out", tmp_path / "out")
    assert process.returncode == 2
    (line,) = own_lines(process)
    assert "nowhere" in line


@pytest.mark.mpi_launch
def test_only_a_trace_is_replaced(flags, tmp_path):
    out, path, notes = tmp_path / "out", tmp_path / "trace.json", tmp_path / "notes.json"
    notes.write_text("[1]")
    refused = train(1, *flags, "--timeline", notes, "--out", out)
    assert refused.returncode == 2
    assert f"{notes}: found a file there already; give --overwrite" in refused.stderr
    assert notes.read_text() == "[1]" and not out.exists()
    for file in (path, path, notes):
        done = train(1, *flags, "--timeline", file, "--out", out, "--overwrite")
        assert done.returncode == 0, done.stderr
    first = train(1, *flags, "--timeline", path, "--out", tmp_path / "other")
    assert first.returncode == 0, first.stderr


@pytest.mark.mpi_launch
def test_a_file_that_cannot_be_written_ends_a_run_before_it_replaces_another(flags, tmp_path):
    out = tmp_path / "out"
    done = train(1, *flags, "--timeline", out / "trace.json", "--out", out)
    assert done.returncode == 0, done.stderr
    for wrong in (tmp_path / "nowhere" / "x", tmp_path):
        again = train(1, *flags, "--timeline", wrong, "--out", out, "--overwrite")
        assert again.returncode == 2
        (line,) = own_lines(again)
        assert line.startswith("distnet: error: --timeline: found ")
    assert (out / "summary.json").exists() and any((out / "checkpoints").iterdir())


def test_a_trace_that_is_full_keeps_the_first_spans(monkeypatch):
    monkeypatch.setattr(timeline, "MAX_SPANS", 3)
    trace = Timeline(SerialCommunicator())
    trainer = SimpleNamespace(step=lambda number: number, advance=None)
    trace._watch_steps(trainer)
    assert [trainer.step(number) for number in range(5)] == list(range(5))
    assert trace.is_full
    assert [name for name, _, _ in trace._spans] == ["step 0", "step 1", "step 2"]


@pytest.mark.parametrize("num_hosts, expected", [(1, 1000), (2, 6000)])
def test_clocks_of_other_hosts_are_compared(num_hosts, expected):
    """This host's clock is 5000 ns ahead of rank 0's, which reads 1000 ns at the first ping."""
    own, other = count(6000, 100), [1000 + 100 * n for n in range(timeline.NUM_PINGS)]
    comm = SimpleNamespace(
        node=SimpleNamespace(count=num_hosts),
        barrier=lambda: None,
        allgather=lambda readings: [other, readings],
    )
    assert timeline._origin(comm, lambda: next(own)) == expected


@pytest.mark.mpi_launch
def test_islands_have_steps_of_their_own_and_come_together(flags, tmp_path):
    """Three ranks for two islands: rank 0 has one alone, the others share one."""
    path, local = tmp_path / "trace.json", ["--sync", "local", "--islands", 2, "--sync-every", 3]
    succeed(3, *flags, *local, "--timeline", path, "--out", tmp_path / "out")
    events = json.loads(path.read_text())["traceEvents"]
    expected = [*(f"step {step}" for step in range(3)), "synchronize islands"]
    expected += [*(f"step {step}" for step in range(3, 6)), "synchronize islands"]
    for rank in range(3):
        spans = [event for event in events if event["pid"] == rank and event["ph"] == "X"]
        top = [name for depth, name in nested(spans) if depth == 0]
        assert [name for name in top if name in expected] == expected
        # An island begins at the common parameters, and asks which steps have samples for it.
        assert set(top) - set(expected) <= {"refresh", "sampler"}
