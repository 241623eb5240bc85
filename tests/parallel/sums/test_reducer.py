from __future__ import annotations

import hashlib
import itertools
import time
import tracemalloc
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from distnet.parallel import REDUCTIONS, NonFiniteGradient, SerialCommunicator, make_reducer
from distnet.parallel.sums.exchange import Messages
from distnet.parallel.sums.formats import Exact
from distnet.parallel.sums.reducer import Reducer, cut_buckets
from distnet.parallel.sums.shared import SharedMemory

SIZE, TALLY_SIZE = 40_000, 5
BUCKET_BYTES = [8, 1000, 1 << 16, 1 << 30]


EXACT = [kind for kind in REDUCTIONS if REDUCTIONS[kind].exact]
MAKERS = {kind: partial(make_reducer, kind) for kind in REDUCTIONS}
MAKERS |= {f"{kind}, sent": partial(make_reducer, kind, exchange="messages") for kind in EXACT}
KINDS = list(MAKERS)


def contribution(micro_batch, size=SIZE):
    """The gradient and tally of a micro-batch, of all magnitudes that training knows."""
    generator = np.random.default_rng(micro_batch)
    magnitudes = 10.0 ** generator.uniform(-9, 2, size)
    gradient = (generator.standard_normal(size) * magnitudes).astype(np.float32)
    return gradient, generator.standard_normal(TALLY_SIZE) * [1, 10, 1e3, 1e-3, 0]


@dataclass
class Run:
    """A reducer and the vector that it reads, which `step` fills as backward does."""

    reducer: Reducer
    gradients: np.ndarray

    def step(self, micro_batches, contributions=contribution, cuts=(0.9, 0.5, 0.2)):
        """A step of one rank: micro-batches become ready in pieces, from the end."""
        self.reducer.start(micro_batches)
        for m in micro_batches:
            self.gradients[:], tally = contributions(m)
            for cut in cuts:
                self.reducer.ready(int(cut * self.gradients.size))
                self.reducer.progress()
            self.reducer.add(m, tally)
        return self.reducer.finish()


def make_run(kind, comm, size, tally_size, **options):
    gradients = np.zeros(size, np.float32)
    return Run(MAKERS[kind](comm, gradients, tally_size, **options), gradients)


def exact_sum(arrays, scale_bits):
    """Independent of the code under test: whole numbers of 2^-scale_bits."""
    scale = 2.0**scale_bits
    return sum(np.rint(a.astype(np.float64) * scale).astype(np.int64) for a in arrays) / scale


def tally_of(tallies):
    """What a reducer of one process makes of the tallies, in another order, if that is right."""
    reducer = make_run("exact", SerialCommunicator(), 0, TALLY_SIZE, num_contributions=7).reducer
    reducer.start(range(len(tallies)))
    for m, tally in enumerate(tallies[::-1]):
        reducer.add(m, tally)
    _, total = reducer.finish()
    exact = [float(sum(map(Fraction, column))) for column in zip(*tallies, strict=True)]
    np.testing.assert_allclose(total, exact, rtol=2.0**-52)
    return total


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
    run = make_run(
        kind,
        any_comm,
        SIZE,
        TALLY_SIZE,
        num_contributions=num_micro_batches,
        bucket_bytes=bucket_bytes,
    )
    gradient, tally = run.step(split(num_micro_batches, any_comm, how))
    assert (gradient.dtype, tally.dtype) == (np.float32, np.float64)
    assert sha256(gradient) == sha256(exact_sum(gradients, 40).astype(np.float32))
    assert sha256(tally) == sha256(tally_of(tallies))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bucket_bytes", BUCKET_BYTES)
def test_closed_form_in_rank_and_size(any_comm, kind, bucket_bytes):
    """Rank r adds r micro-batches (rank 0 none) of numbers which every format holds, also summed.

    They are whole multiples of 1/64, at most 128 of them together: 8 significant bits.
    """
    rank, size = any_comm.rank, any_comm.size
    ramp = (np.arange(100) % 3).astype(np.float32) / 64
    run = make_run(
        kind, any_comm, ramp.size, 2, num_contributions=size**2, bucket_bytes=bucket_bytes
    )
    for step in range(3):
        mine = (rank + 1) * (step + 1) * ramp, np.array([rank, 1.0])
        gradient, tally = run.step(range(rank), lambda _, mine=mine: mine)
        num_contributions = size * (size - 1) // 2
        squares = (size - 1) * size * (size + 1) // 3  # sum of r (r + 1) over ranks r
        np.testing.assert_array_equal(gradient, squares * (step + 1) * ramp)
        np.testing.assert_array_equal(tally, [squares - num_contributions, num_contributions])


def test_float32_sums_are_close(any_comm):
    gradients, tallies = zip(*map(contribution, range(6)), strict=True)
    run = make_run("float32", any_comm, SIZE, TALLY_SIZE, num_contributions=6)
    gradient, tally = run.step(split(6, any_comm, "in turn"))
    bound = 6 * np.finfo(np.float32).eps * np.abs(gradients).sum(axis=0, dtype=np.float64)
    assert np.all(np.abs(gradient - np.sum(gradients, axis=0, dtype=np.float64)) <= bound)
    np.testing.assert_array_equal(tally, tally_of(tallies))


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

    run = make_run(kind, any_comm, 1000, 3, num_contributions=8, bucket_bytes=512)
    mine = split(8, any_comm, "in turn")
    with pytest.raises(NonFiniteGradient) as error_info:
        run.step(mine, gradients)
    error = error_info.value
    assert (error.part, error.index, error.micro_batch) == (part, last, bad[0])
    assert error.rank == bad[0] % any_comm.size
    assert repr(error.value) == repr(float(np.float32(value)))
    assert len(set(any_comm.allgather(str(error)))) == 1
    gradient, tally = run.step(mine, lambda m: (np.ones(1000, np.float32), np.ones(3)))
    assert (set(gradient), set(tally)) == ({8.0}, {8.0})


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_at_the_limit_is_summed(any_comm, kind):
    """As many contributions as promised, as large as allowed, all of one sign: nothing wraps."""
    num_contributions = 2 * any_comm.size
    run = make_run(kind, any_comm, 10, 0, num_contributions=num_contributions)
    extreme = np.full(10, -run.reducer.exchange.format.limit, np.float32)
    gradient, _ = run.step(range(2), lambda m: (extreme, np.zeros(0)))
    rounding = {"float16": 2**-10, "bfloat16": 2**-7}.get(kind, 0)
    np.testing.assert_allclose(gradient, np.float32(num_contributions) * extreme, rtol=rounding)


def test_more_contributions_than_promised_are_an_error(any_comm):
    run = make_run("exact", any_comm, 4, 0, num_contributions=any_comm.size)
    ones = np.ones(4, np.float32), np.zeros(0)
    run.step(range(1), lambda m: ones)
    message = f"found {2 * any_comm.size} micro-batches in a step, expected at most {any_comm.size}"
    with pytest.raises(ValueError, match=message):
        run.step(range(2), lambda m: ones)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_vectors_and_idle_ranks(any_comm, kind):
    run = make_run(kind, any_comm, 0, 0, num_contributions=1)
    gradient, tally = run.step([])
    assert (gradient.size, tally.size) == (0, 0)
    run = make_run(kind, any_comm, 3, 2, num_contributions=1)
    gradient, tally = run.step([])
    assert (gradient.tolist(), tally.tolist()) == ([0, 0, 0], [0, 0])


@pytest.mark.parametrize(
    "kind, num_bytes",
    [
        ("exact", 8000),
        ("exact, sent", 8000),
        ("exact32, sent", 4004),
        ("float32", 4000),
        ("float16", 2000),
        ("bfloat16", 2000),
    ],
)
def test_metrics_of_a_step(any_comm, kind, num_bytes):
    run = make_run(kind, any_comm, 1000, 3, num_contributions=any_comm.size)
    for _ in range(2):  # the first one of exact32 repeats its bucket as int64
        run.step([any_comm.rank], lambda m: (np.ones(1000, np.float32), np.ones(3)))
    assert run.reducer.bytes_sent == num_bytes + 8 * (2 * 3 + 3)
    assert 0 <= run.reducer.wait_seconds < 10


@pytest.mark.parametrize("kind", KINDS)
def test_memory_does_not_grow(any_comm, kind):
    run = make_run(kind, any_comm, 1000, 3, num_contributions=2 * any_comm.size, bucket_bytes=1000)
    inputs = np.ones(1000, np.float32), np.ones(3)

    def steps(count):
        for _ in range(count):
            run.step(range(2), lambda m: inputs)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = steps(20)
        assert steps(300) - before < 2000  # bytes: any object kept for each step takes more
    finally:
        tracemalloc.stop()


def test_ranks_of_one_host_share_memory_unless_they_may_be_lost(any_comm, monkeypatch):
    def are_shared():
        """Which formats; those that are not exact are left to MPI."""
        runs = {kind: make_run(kind, any_comm, 10, 1, num_contributions=9) for kind in REDUCTIONS}
        return [kind for kind in runs if isinstance(runs[kind].reducer.exchange, SharedMemory)]

    assert are_shared() == (EXACT if any_comm.size > 1 else [])
    monkeypatch.setattr(any_comm, "survives_losses", True)
    assert are_shared() == []


def test_a_fast_rank_does_not_disturb_what_a_slow_one_still_reads(any_comm):
    """Each rank is slow after some steps, before it looks at the result."""
    run = make_run("exact", any_comm, 5, 1, num_contributions=any_comm.size)
    for step in range(20):
        mine = np.full(5, (step + 1) * (any_comm.rank + 1), np.float32), np.ones(1)
        gradient, _ = run.step([0], lambda _, mine=mine: mine)
        if step % any_comm.size == any_comm.rank:
            time.sleep(0.005)
        assert set(gradient) == {(step + 1) * any_comm.size * (any_comm.size + 1) / 2}


def make_serial():
    return make_run("exact", SerialCommunicator(), 10, 1, num_contributions=2)


def test_calls_out_of_order_are_errors():
    tally, reducer = np.ones(1), make_serial().reducer
    calls = (partial(reducer.ready, 0), partial(reducer.add, 0, tally), reducer.finish)
    for call in calls:
        with pytest.raises(ValueError, match="begins with start"):
            call()
    reducer.start([0, 4])
    with pytest.raises(ValueError, match=r"found micro-batches \[4\], expected \[0\]"):
        reducer.add(4, tally)
    reducer.add(0, tally)
    reducer.ready(5)
    with pytest.raises(ValueError, match="found offset 6, expected 0 to 5"):
        reducer.ready(6)
    with pytest.raises(ValueError, match="with 1 micro-batches added, expected 2"):
        reducer.finish()
    reducer.add(4, tally)
    for call in calls[:2]:
        with pytest.raises(ValueError, match="all 2 micro-batches of this rank are added"):
            call()
    reducer.finish()
    with pytest.raises(ValueError, match="begins with start"):
        reducer.finish()


def test_start_forgets_a_step_that_was_given_up():
    run = make_serial()
    run.gradients[:] = np.nan
    run.reducer.start([0, 1])
    run.reducer.add(0, np.ones(1))
    run.reducer.ready(3)
    total, _ = run.step([5], lambda m: (np.ones(10, np.float32), np.ones(1)))
    assert set(total) == {1.0}


def test_gradients_of_another_size_are_refused():
    comm = SerialCommunicator()
    with pytest.raises(ValueError, match=r"shape \(9,\), expected \(10,\)"):
        Reducer(comm, Messages(comm, Exact(10, 1)), np.zeros(9, np.float32), 0)


def test_unknown_reductions_are_refused():
    with pytest.raises(
        ValueError, match="found reduction 'magic', expected one of: exact, exact32,"
    ):
        make_reducer("magic", SerialCommunicator(), np.zeros(1, np.float32), 0, num_contributions=1)


def test_an_exchange_can_be_chosen(any_comm):
    """Shared memory for sums that are not exact too; but not by a rank that is alone."""

    def make(exchange):
        return make_run("float32", any_comm, 10, 1, num_contributions=9, exchange=exchange)

    with pytest.raises(ValueError, match="found exchange 'pigeon', expected one of: auto, shared,"):
        make("pigeon")
    if any_comm.size == 1:
        with pytest.raises(ValueError, match="exchange shared: found 1 rank on 1 host that"):
            make("shared")
        return
    run = make("shared")
    total, _ = run.step([0], lambda m: (np.full(10, any_comm.rank, np.float32), np.ones(1)))
    assert set(total) == {any_comm.size * (any_comm.size - 1) / 2}


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
    run = make_run("exact", comm, 25, 1, num_contributions=2, bucket_bytes=80)
    run.step(micro_batches, lambda m: (np.ones(25, np.float32), np.ones(1)), cuts)
    assert comm.lengths == [10, 10, 5, 2 * 1 + 3]


def test_a_bucket_leaves_as_soon_as_it_is_ready():
    """In the last micro-batch: until then it is not the rank's sum."""
    comm = Recorder()
    run = make_run("exact", comm, 25, 1, num_contributions=2, bucket_bytes=80)
    run.reducer.start([0, 1])
    run.reducer.ready(0)
    run.reducer.add(0, np.ones(1))
    sent = [len(comm.lengths)]
    for offset in (20, 15, 6, 5, 0):
        run.reducer.ready(offset)
        sent.append(len(comm.lengths))
    assert sent == [0, 0, 1, 1, 2, 3]


@pytest.mark.parametrize(("bucket_bytes", "several"), [(80, True), (200, False)])
def test_messages_overlap_where_there_are_others_and_more_than_one_bucket(
    any_comm, bucket_bytes, several
):
    options = {"num_contributions": 1, "bucket_bytes": bucket_bytes}
    run = make_run("exact", any_comm, 25, 1, **options)
    assert run.reducer.overlaps == (several and any_comm.size > 1)


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
    run = make_run("exact", comm, 25, 1, num_contributions=1, bucket_bytes=80)
    run.reducer.start([0])
    num_tests = []
    for offset in (20, 15, 15, 5, 5, 5):
        run.reducer.ready(offset)
        num_tests.append(comm.num_tests)
    assert num_tests == [0, 1, 2, 4, 5, 6]  # the first message arrives at its third test


def test_buckets_are_cut_from_the_end():
    assert cut_buckets(25, 80, 8) == [slice(15, 25), slice(5, 15), slice(0, 5)]
    assert cut_buckets(3, 1, 8) == [slice(2, 3), slice(1, 2), slice(0, 1)]
    assert cut_buckets(0, 80, 8) == []


def test_one_raised_flag_is_known_to_all_ranks(any_comm):
    reducer = make_run("exact", any_comm, 3, 2, num_contributions=1).reducer
    for raised, expected in ((True, 1), (False, 0)):
        reducer.start(())
        reducer.finish(flag=raised and any_comm.rank == any_comm.size - 1)
        assert reducer.num_flags == expected


def units_of(micro_batches, size=SIZE):
    """The sum of their gradients, as somebody else would make it beforehand; and their tallies."""
    gradients, tallies = zip(*(contribution(m, size) for m in micro_batches), strict=True)
    units = sum(np.rint(g.astype(np.float64) * 2.0**40).astype(np.int64) for g in gradients)
    return units, np.array(tallies)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[0], [1, 2]], [[0, 1, 2]]], ids=str)
def test_sums_that_are_made_already_count_as_their_terms(comm, groups):
    size = 1000
    mine = [3 * comm.rank + m for m in range(3)]
    run = make_run("exact", comm, size, TALLY_SIZE, num_contributions=6)
    expected = [each.copy() for each in run.step(mine, partial(contribution, size=size))]
    for first_alone in (False, True):
        run.reducer.start(mine)
        for group in groups:
            numbers = [mine[m] for m in group]
            if first_alone and group is groups[0]:
                for m in numbers:
                    run.gradients[:], tally = contribution(m, size)
                    run.reducer.add(m, tally)
            else:
                run.reducer.add_units(numbers, *units_of(numbers, size))
        for found, total in zip(run.reducer.finish(), expected, strict=True):
            np.testing.assert_array_equal(found, total)


def test_sums_that_are_made_already_come_in_order_and_in_units():
    run = make_run("exact", SerialCommunicator(), SIZE, TALLY_SIZE, num_contributions=3)
    assert run.reducer.units.scale == 2.0**40
    run.reducer.start(range(3))
    with pytest.raises(ValueError, match=r"found micro-batches \[1, 2\], expected \[0, 1\]"):
        run.reducer.add_units([1, 2], *units_of([1, 2]))
    for kind in ("exact32", "float32", "float16"):
        other = make_run(kind, SerialCommunicator(), SIZE, TALLY_SIZE, num_contributions=3)
        assert other.reducer.units is None
