from __future__ import annotations

import hashlib
import itertools
import time
import tracemalloc
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from distnet.parallel import REDUCTIONS, NonFiniteGradient, SerialCommunicator, make_reducer
from distnet.parallel.sums.formats import ExactSum
from distnet.parallel.sums.reducer import Reducer, cut_buckets
from distnet.parallel.sums.shared import SharedExactSum

SIZE, TALLY_SIZE = 40_000, 5
BUCKET_BYTES = [8, 1000, 1 << 16, 1 << 30]


def make_sent(comm, size, tally_size, *, num_contributions, bucket_bytes=0):
    """Exact sums in messages, which ranks of one host do without."""
    gradient_sum = ExactSum(size, num_contributions)
    return Reducer(comm, gradient_sum, tally_size, bucket_bytes=bucket_bytes)


MAKERS = {kind: partial(make_reducer, kind) for kind in REDUCTIONS} | {"exact, sent": make_sent}
KINDS = list(MAKERS)
EXACT = [kind for kind in REDUCTIONS if REDUCTIONS[kind].exact]


def contribution(micro_batch, size=SIZE):
    """The gradient and tally of a micro-batch, of all magnitudes that training knows."""
    generator = np.random.default_rng(micro_batch)
    magnitudes = 10.0 ** generator.uniform(-9, 2, size)
    gradient = (generator.standard_normal(size) * magnitudes).astype(np.float32)
    return gradient, generator.standard_normal(TALLY_SIZE) * [1, 10, 1e3, 1e-3, 0]


def run_step(reducer, micro_batches, gradients=contribution, cuts=(0.9, 0.5, 0.2)):
    """A step of one rank: the last micro-batch becomes ready in pieces, as during backward."""
    reducer.start()
    for m in micro_batches[:-1]:
        reducer.add(*gradients(m), m)
    if not micro_batches:
        return reducer.finish(None, None)
    gradient, tally = gradients(micro_batches[-1])
    for cut in cuts:
        reducer.ready(gradient, int(cut * gradient.size))
        reducer.progress()
    return reducer.finish(gradient, tally, micro_batches[-1])


def exact_sum(arrays, scale_bits):
    """Independent of the code under test: whole numbers of 2^-scale_bits."""
    scale = 2.0**scale_bits
    return sum(np.rint(a.astype(np.float64) * scale).astype(np.int64) for a in arrays) / scale


def sha256(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def split(num_micro_batches, comm, how):
    """Three ways to share micro-batches out; the last leaves all but one rank without any."""
    numbers = list(range(num_micro_batches))
    if how == "in turn":
        return numbers[comm.rank :: comm.size]
    if how == "in blocks, reversed":
        return np.array_split(numbers[::-1], comm.size)[comm.rank].tolist()
    return numbers if comm.rank == comm.size - 1 else []


@pytest.mark.parametrize("bucket_bytes", BUCKET_BYTES[1:])
@pytest.mark.parametrize("how", ["in turn", "in blocks, reversed", "one rank has all"])
@pytest.mark.parametrize("kind", ["exact", "exact, sent"])
def test_exact_sums_have_the_bits_of_whole_numbers(any_comm, kind, how, bucket_bytes):
    num_micro_batches = 7
    gradients, tallies = zip(*map(contribution, range(num_micro_batches)), strict=True)
    reducer = MAKERS[kind](
        any_comm,
        SIZE,
        TALLY_SIZE,
        num_contributions=num_micro_batches,
        bucket_bytes=bucket_bytes,
    )
    gradient, tally = run_step(reducer, split(num_micro_batches, any_comm, how))
    assert (gradient.dtype, tally.dtype) == (np.float32, np.float64)
    assert sha256(gradient) == sha256(exact_sum(gradients, 40).astype(np.float32))
    assert sha256(tally) == sha256(exact_sum(tallies, 32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bucket_bytes", BUCKET_BYTES)
def test_closed_form_in_rank_and_size(any_comm, kind, bucket_bytes):
    """Rank r adds r micro-batches (rank 0 none) of numbers which every format holds, also summed.

    They are whole multiples of 1/64, at most 128 of them together: 8 significant bits.
    """
    rank, size = any_comm.rank, any_comm.size
    ramp = (np.arange(100) % 3).astype(np.float32) / 64
    reducer = MAKERS[kind](
        any_comm, ramp.size, 2, num_contributions=size**2, bucket_bytes=bucket_bytes
    )
    for step in range(3):
        mine = (rank + 1) * (step + 1) * ramp, np.array([rank, 1.0])
        gradient, tally = run_step(reducer, range(rank), lambda _, mine=mine: mine)
        num_contributions = size * (size - 1) // 2
        squares = (size - 1) * size * (size + 1) // 3  # sum of r (r + 1) over ranks r
        np.testing.assert_array_equal(gradient, squares * (step + 1) * ramp)
        np.testing.assert_array_equal(tally, [squares - num_contributions, num_contributions])


def test_float32_sums_are_close(any_comm):
    gradients, tallies = zip(*map(contribution, range(6)), strict=True)
    reducer = make_reducer("float32", any_comm, SIZE, TALLY_SIZE, num_contributions=6)
    gradient, tally = run_step(reducer, split(6, any_comm, "in turn"))
    bound = 6 * np.finfo(np.float32).eps * np.abs(gradients).sum(axis=0, dtype=np.float64)
    assert np.all(np.abs(gradient - np.sum(gradients, axis=0, dtype=np.float64)) <= bound)
    np.testing.assert_array_equal(tally, exact_sum(tallies, 32))


def test_who_promises_bits():
    assert list(REDUCTIONS) == ["exact", "exact32", "float32", "float16", "bfloat16"]
    assert EXACT == ["exact", "exact32"]


BAD = {
    "nan": (np.nan, "gradient", 950),
    "inf": (-np.inf, "gradient", 950),
    "too large": (3e38, "gradient", 950),
    "tally": (np.nan, "tally", 2),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("bad", [(3, 5), (7,)])  # added at once; in pieces, as a rank's last
def test_bad_values_fail_on_all_ranks_alike(any_comm, kind, what, bad):
    """Every rank names the same place in the first of 8 micro-batches that is bad."""
    value, part, last = BAD[what]

    def gradients(m):
        gradient, tally = np.ones(1000, np.float32), np.ones(3)
        if m in bad:
            (gradient if part == "gradient" else tally)[[0, last]] = value
        return gradient, tally

    reducer = MAKERS[kind](any_comm, 1000, 3, num_contributions=8, bucket_bytes=512)
    mine = split(8, any_comm, "in turn")
    with pytest.raises(NonFiniteGradient) as error_info:
        run_step(reducer, mine, gradients)
    error = error_info.value
    assert (error.part, error.index, error.micro_batch) == (part, last, bad[0])
    assert error.rank == bad[0] % any_comm.size
    assert repr(error.value) == repr(float(np.float32(value)))
    assert len(set(any_comm.allgather(str(error)))) == 1
    gradient, tally = run_step(reducer, mine, lambda m: (np.ones(1000, np.float32), np.ones(3)))
    assert (set(gradient), set(tally)) == ({8.0}, {8.0})


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_at_the_limit_is_summed(any_comm, kind):
    """As many contributions as promised, as large as allowed, all of one sign: nothing wraps."""
    num_contributions = 2 * any_comm.size
    reducer = MAKERS[kind](any_comm, 10, 0, num_contributions=num_contributions)
    extreme = np.full(10, -reducer.gradient_sum.limit, np.float32)
    gradient, _ = run_step(reducer, range(2), lambda m: (extreme, np.zeros(0)))
    rounding = {"float16": 2**-10, "bfloat16": 2**-7}.get(kind, 0)
    np.testing.assert_allclose(gradient, np.float32(num_contributions) * extreme, rtol=rounding)


def test_more_contributions_than_promised_are_an_error(any_comm):
    reducer = make_reducer("exact", any_comm, 4, 0, num_contributions=any_comm.size)
    ones = np.ones(4, np.float32), np.zeros(0)
    run_step(reducer, range(1), lambda m: ones)
    message = f"found {2 * any_comm.size} micro-batches in a step, expected at most {any_comm.size}"
    with pytest.raises(ValueError, match=message):
        run_step(reducer, range(2), lambda m: ones)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_vectors_and_idle_ranks(any_comm, kind):
    reducer = MAKERS[kind](any_comm, 0, 0, num_contributions=1)
    gradient, tally = run_step(reducer, [])
    assert (gradient.size, tally.size) == (0, 0)
    reducer = MAKERS[kind](any_comm, 3, 2, num_contributions=1)
    gradient, tally = run_step(reducer, [])
    assert (gradient.tolist(), tally.tolist()) == ([0, 0, 0], [0, 0])


@pytest.mark.parametrize(
    "kind, num_bytes",
    [("exact", 8000), ("exact32", 4004), ("float32", 4000), ("float16", 2000), ("bfloat16", 2000)],
)
def test_metrics_of_a_step(any_comm, kind, num_bytes):
    reducer = MAKERS[kind](any_comm, 1000, 3, num_contributions=any_comm.size)
    for _ in range(2):  # the first one of exact32 repeats its bucket as int64
        run_step(reducer, [any_comm.rank], lambda m: (np.ones(1000, np.float32), np.ones(3)))
    assert reducer.bytes_sent == num_bytes + 8 * (3 + 3)
    assert 0 <= reducer.wait_seconds < 10


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow(any_comm, kind):
    reducer = MAKERS[kind](
        any_comm, 1000, 3, num_contributions=2 * any_comm.size, bucket_bytes=1000
    )
    inputs = np.ones(1000, np.float32), np.ones(3)

    def steps(count):
        for _ in range(count):
            run_step(reducer, range(2), lambda m: inputs)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = steps(20)
        assert steps(300) - before < 2000  # bytes: any object kept for each step takes more
    finally:
        tracemalloc.stop()


def test_ranks_of_one_host_share_memory_unless_they_may_be_lost(any_comm, monkeypatch):
    def is_shared():
        reducer = make_reducer("exact", any_comm, 10, 1, num_contributions=any_comm.size)
        return isinstance(reducer.gradient_sum, SharedExactSum)

    assert is_shared() == (any_comm.size > 1)
    monkeypatch.setattr(any_comm, "survives_losses", True)
    assert not is_shared()


def test_a_fast_rank_does_not_disturb_what_a_slow_one_still_reads(any_comm):
    """Each rank is slow after some steps, before it looks at the result."""
    reducer = make_reducer("exact", any_comm, 5, 1, num_contributions=any_comm.size)
    for step in range(20):
        mine = np.full(5, (step + 1) * (any_comm.rank + 1), np.float32), np.ones(1)
        gradient, _ = run_step(reducer, [0], lambda _, mine=mine: mine)
        if step % any_comm.size == any_comm.rank:
            time.sleep(0.005)
        assert set(gradient) == {(step + 1) * any_comm.size * (any_comm.size + 1) / 2}


def make_serial():
    return make_reducer("exact", SerialCommunicator(), 10, 1, num_contributions=2)


def test_calls_out_of_order_are_errors():
    gradient, tally = np.ones(10, np.float32), np.ones(1)
    reducer = make_serial()
    reducer.ready(gradient, 5)
    with pytest.raises(ValueError, match="found offset 6, expected 0 to 5"):
        reducer.ready(gradient, 6)
    with pytest.raises(ValueError, match="without the micro-batch that ready"):
        reducer.finish(None, None)
    reducer.ready(gradient, 0)
    with pytest.raises(ValueError, match="after ready"):
        reducer.add(gradient, tally)
    reducer.finish(gradient, tally)
    for call in (reducer.add, reducer.finish):
        with pytest.raises(ValueError, match="begins with start"):
            call(gradient, tally)


def test_start_forgets_a_step_that_was_given_up():
    gradient, tally = np.ones(10, np.float32), np.ones(1)
    reducer = make_serial()
    reducer.add(np.full(10, np.nan, np.float32), tally)
    reducer.ready(gradient, 3)
    reducer.start()
    total, _ = reducer.finish(gradient, tally)
    assert set(total) == {1.0}


def test_unknown_reductions_are_refused():
    with pytest.raises(
        ValueError, match="found reduction 'magic', expected one of: exact, exact32,"
    ):
        make_reducer("magic", SerialCommunicator(), 1, 0, num_contributions=1)


class Recorder(SerialCommunicator):
    """Remembers how many elements each message has, in order."""

    def __init__(self):
        super().__init__()
        self.lengths = []

    def iallreduce(self, array, op="sum"):
        self.lengths.append(array.size)
        return super().iallreduce(array, op)


@pytest.mark.parametrize("micro_batches", [[], [0], [0, 1]])
@pytest.mark.parametrize("cuts", [(), (0.95, 0.94), (0.9, 0.5, 0.2), (0,)])
def test_messages_do_not_depend_on_what_a_rank_has_to_do(micro_batches, cuts):
    comm = Recorder()
    reducer = make_reducer("exact", comm, 25, 1, num_contributions=2, bucket_bytes=80)
    run_step(reducer, micro_batches, lambda m: (np.ones(25, np.float32), np.ones(1)), cuts)
    assert comm.lengths == [10, 10, 5, 1 + 3]


def test_a_bucket_leaves_as_soon_as_it_is_ready():
    comm = Recorder()
    reducer = make_reducer("exact", comm, 25, 1, num_contributions=1, bucket_bytes=80)
    gradient, sent = np.ones(25, np.float32), []
    for offset in (20, 15, 6, 5, 0):
        reducer.ready(gradient, offset)
        sent.append(len(comm.lengths))
    assert sent == [0, 1, 1, 2, 3]


class Slow(SerialCommunicator):
    """Messages arrive at the third test; counts the tests."""

    num_tests = 0

    def iallreduce(self, array, op="sum"):
        calls = itertools.count(1)

        def test():
            self.num_tests += 1
            return next(calls) >= 3

        return SimpleNamespace(test=test, wait=lambda: None)


def test_every_layer_lets_all_messages_move():
    """Also one without parameters, whose suffix has not grown; what has arrived is left alone."""
    comm = Slow()
    reducer = make_reducer("exact", comm, 25, 1, num_contributions=1, bucket_bytes=80)
    gradient, num_tests = np.ones(25, np.float32), []
    for offset in (20, 15, 15, 5, 5, 5):
        reducer.ready(gradient, offset)
        num_tests.append(comm.num_tests)
    assert num_tests == [0, 1, 2, 4, 5, 6]  # the first message arrives at its third test


def test_buckets_are_cut_from_the_end():
    assert cut_buckets(25, 80, 8) == [slice(15, 25), slice(5, 15), slice(0, 5)]
    assert cut_buckets(3, 1, 8) == [slice(2, 3), slice(1, 2), slice(0, 1)]
    assert cut_buckets(0, 80, 8) == []


def test_one_raised_flag_is_known_to_all_ranks(any_comm):
    reducer = make_reducer("exact", any_comm, 3, 2, num_contributions=1)
    for raised, expected in ((True, 1), (False, 0)):
        reducer.start()
        reducer.finish(None, None, flag=raised and any_comm.rank == any_comm.size - 1)
        assert reducer.num_flags == expected
