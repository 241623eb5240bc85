"""A user's all-reduce: what is right passes with the same bits, what is wrong ends all ranks."""

from __future__ import annotations

import re

import numpy as np
import pytest

from distnet.parallel import OwnAllreduce, SerialCommunicator, make_reducer
from distnet.parallel.sums.own import WrongSum, what_is_wrong

SIZE = 1000


def gathering(send, receive, comm):
    """Every rank sends all that it has to every other; the order of additions is its own."""
    for numbers in comm.allgather(send):
        receive += numbers
    send[:] = 0  # what it was given is its own


def wrong_on_rank_1(send, receive, comm):
    gathering(send, receive, comm)
    if comm.rank == 1:
        receive[7] += 1


def sums(kind, comm, exchange, bucket_bytes=0):
    """Of two steps, in which every rank has one micro-batch."""
    gradients = np.zeros(SIZE, np.float32)
    reducer = make_reducer(
        kind,
        comm,
        gradients,
        1,
        num_contributions=comm.size,
        exchange=exchange,
        bucket_bytes=bucket_bytes,
    )
    results = []
    for step in range(2):
        reducer.start([comm.rank])
        gradients[:] = np.random.default_rng([step, comm.rank]).standard_normal(SIZE)
        reducer.ready(SIZE // 2)
        reducer.add(comm.rank, np.ones(1))
        results.append(reducer.finish()[0].copy())
    return np.array(results), reducer.exchange


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("kind", ["exact", "exact32"])
@pytest.mark.parametrize("bucket_bytes", [0, 1024])
def test_the_bits_are_those_of_every_other_way(comm, kind, bucket_bytes):
    expected, _ = sums(kind, comm, "messages")
    found, exchange = sums(kind, comm, OwnAllreduce(gathering, "x:gathering"), bucket_bytes)
    assert np.array_equal(found, expected)
    buckets = len(exchange.times.own)
    assert buckets == len(exchange.times.mpi) and buckets >= (8 if bucket_bytes else 2)
    assert min(exchange.times.typical()) > 0


@pytest.mark.mpi(min_size=3)
def test_one_wrong_sum_on_one_rank_ends_all(comm):
    with pytest.raises(WrongSum) as caught:
        sums("exact", comm, OwnAllreduce(wrong_on_rank_1, "x:wrong"))
    assert str(caught.value).startswith(
        "--allreduce x:wrong: its sums are wrong on 1 of 3 ranks in step 0; on rank 1 1 of 1,000 "
        "are, the first at index 7: found "
    )


@pytest.mark.mpi(min_size=2)
def test_sums_that_round_cannot_be_judged(comm):
    with pytest.raises(ValueError, match="found sums that are not exact"):
        sums("float32", comm, OwnAllreduce(gathering, "x:gathering"))


def test_one_process_has_nothing_to_sum():
    def never(*args):
        raise AssertionError

    expected, _ = sums("exact", SerialCommunicator(), "auto")
    found, _ = sums("exact", SerialCommunicator(), OwnAllreduce(never, "x:never"))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "received, words",
    [
        ([3, 0, 7], ""),
        ([3, 5, 7], "1 of 3 are, the first at index 1: found 5, expected 0"),
        ([0, 0, 0], "2 of 3 are, .* found 0, expected 3; nothing was written to receive"),
        ([1, 0, 2], "2 of 3 are, .* found 1, expected 3; receive holds what this rank had itself"),
    ],
)
def test_what_is_wrong_in_words(received, words):
    found = what_is_wrong(np.array([1, 0, 2]), np.array(received), np.array([3, 0, 7]))
    assert re.fullmatch(words, found)


@pytest.mark.parametrize(
    "name, words",
    [
        ("mine", "found 'mine', expected MODULE:FUNCTION"),
        ("absent_module:f", "module absent_module cannot be imported, .*: ModuleNotFoundError: "),
        ("broken_module:f", "broken_module cannot be imported, .*: ZeroDivisionError: division"),
        ("some_module:g", "found nothing of that name in .*some_module.py, expected a function"),
        ("some_module:x", "found int of that name"),
    ],
)
def test_a_function_that_cannot_be_had_is_one_line(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere"])
    (tmp_path / "some_module.py").write_text("x = 3\ndef f(send, receive, comm): ...\n")
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=words) as caught:
        OwnAllreduce.named(name)
    assert "\n" not in str(caught.value)
    assert OwnAllreduce.named("some_module:f").name == "some_module:f"
