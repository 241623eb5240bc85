"""The sampler: every sample once an epoch, whoever computes it, whenever it is asked."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distnet.data import Sampler
from distnet.data.sampler import Draws
from distnet.parallel.dealing import deal

samplers = st.builds(
    Sampler,
    num_samples=st.integers(1, 300),
    batch_size=st.integers(1, 400),
    micro_batch_size=st.integers(1, 70),
    seed=st.integers(0, 2**64 - 1),
)


@given(samplers, st.integers(0, 10**6))
def test_an_epoch_is_a_permutation_of_everything(sampler, epoch):
    first = epoch * sampler.steps_per_epoch
    batches = [sampler.batch(first + i) for i in range(sampler.steps_per_epoch)]
    assert sorted(np.concatenate(batches)) == list(range(sampler.num_samples))
    assert all(len(batch) == sampler.batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= sampler.batch_size


@given(samplers, st.integers(0, 10**6))
def test_micro_batches_make_up_the_batch(sampler, step):
    pieces = sampler.micro_batches(step)
    np.testing.assert_array_equal(np.concatenate(pieces), sampler.batch(step))
    assert all(len(piece) == sampler.micro_batch_size for piece in pieces[:-1])
    assert 0 < len(pieces[-1]) <= sampler.micro_batch_size
    assert len(pieces) <= sampler.max_micro_batches


@given(samplers, st.integers(0, 100), st.integers(1, 40))
def test_parts_share_the_batch(sampler, step, num_parts):
    sizes = sampler.num_samples, sampler.batch_size, sampler.micro_batch_size
    divided = Sampler(*sizes, sampler.seed, num_parts)
    parts = [divided.part(step, part) for part in range(num_parts)]
    np.testing.assert_array_equal(np.concatenate(parts), sampler.batch(step))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    pieces = [divided.micro_batches(step, part) for part in range(num_parts)]
    assert [sum(map(len, each)) for each in pieces] == lengths
    assert max(map(len, pieces)) <= divided.max_micro_batches


@given(samplers)
def test_max_micro_batches_is_reached(sampler):
    assert len(sampler.micro_batches(0)) == sampler.max_micro_batches


@given(samplers, st.lists(st.integers(0, 10**4), max_size=8), st.integers(0, 10**4))
def test_depends_on_nothing_but_seed_and_step(sampler, visited, step):
    fresh = Sampler(sampler.num_samples, sampler.batch_size, sampler.micro_batch_size, sampler.seed)
    for other in visited:
        sampler.batch(other)
    np.testing.assert_array_equal(sampler.batch(step), fresh.batch(step))


@given(samplers, st.integers(0, 100), st.integers(1, 9))
def test_ranks_share_the_batch(sampler, step, size):
    pieces = sampler.micro_batches(step)
    shares = [[pieces[m] for m in deal(len(pieces), rank, size)] for rank in range(size)]
    np.testing.assert_array_equal(
        np.concatenate([piece for share in shares for piece in share]), sampler.batch(step)
    )


def test_the_order_is_independent_of_the_batch_size():
    def epoch(batch_size: int) -> np.ndarray:
        sampler = Sampler(100, batch_size, 8, seed=3)
        return np.concatenate([sampler.batch(i) for i in range(sampler.steps_per_epoch)])

    np.testing.assert_array_equal(epoch(7), epoch(64))


def test_epochs_and_seeds_differ():
    def order(seed: int, epoch: int) -> list[int]:
        return Sampler(1000, 1000, 100, seed).batch(epoch).tolist()

    orders = [order(seed, epoch) for seed in (0, 1, 2**64 - 1) for epoch in (0, 1, 2)]
    assert len({tuple(o) for o in orders}) == len(orders)
    fixed_points = sum(i == sample for o in orders for i, sample in enumerate(o))
    assert fixed_points < 40  # 9 permutations have 9 on average


def test_the_order_never_changes_between_versions():
    """A run that is resumed under another NumPy must go on in the same order."""
    assert Sampler(60000, 8, 8, seed=0).batch(0).tolist() == FIRST_BATCH
    assert Sampler(60000, 8, 8, seed=2**63 + 1).batch(7500 * 5).tolist() == FIRST_BATCH_OF_EPOCH_5


FIRST_BATCH = [49590, 20474, 57571, 40400, 55904, 17672, 21885, 40]
FIRST_BATCH_OF_EPOCH_5 = [39489, 2186, 2660, 39138, 31263, 44067, 11348, 8303]


def test_indices_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        Sampler(10, 5, 5, 0).micro_batches(0)[0][0] = 1


def test_batches_are_int64():
    assert Sampler(10, 5, 5, 0).batch(0).dtype == np.int64


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one(position, value):
    sizes = [10, 5, 5]
    sizes[position] = value
    name = ["num_samples", "batch_size", "micro_batch_size"][position]
    with pytest.raises(ValueError, match=rf"found {name} {value}, expected 1 or more"):
        Sampler(*sizes, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_impossible_seed(seed):
    with pytest.raises(ValueError, match=f"found seed {seed}"):
        Sampler(10, 5, 5, seed)


def test_negative_step():
    with pytest.raises(ValueError, match="found step -1"):
        Sampler(10, 5, 5, 0).batch(-1)


@given(st.integers(0, 1000), st.integers(1, 100))
def test_deal_covers_everything_in_order_and_balanced(num_micro_batches, size):
    shares = [deal(num_micro_batches, rank, size) for rank in range(size)]
    assert [m for share in shares for m in share] == list(range(num_micro_batches))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("arguments", [(4, 2, 2), (4, -1, 2), (4, 0, 0), (-1, 0, 1)])
def test_deal_of_impossible_ranks(arguments):
    with pytest.raises(ValueError, match="deal: found rank"):
        deal(*arguments)


speeds_of_ranks = st.lists(st.integers(1, 1000), min_size=1, max_size=6)


@given(st.integers(0, 60), speeds_of_ranks)
def test_deal_by_speed_covers_everything_in_order(num_micro_batches, speeds):
    size = len(speeds)
    shares = [deal(num_micro_batches, rank, size, speeds) for rank in range(size)]
    assert [m for share in shares for m in share] == list(range(num_micro_batches))


@given(st.integers(1, 9), st.lists(st.integers(1, 1000), min_size=1, max_size=3))
def test_no_other_deal_is_ready_earlier(num_micro_batches, speeds):
    """Against all ways to share them out."""
    size = len(speeds)

    def ready(lengths):
        return max(Fraction(n, speed) for n, speed in zip(lengths, speeds, strict=True))

    found = [len(deal(num_micro_batches, rank, size, speeds)) for rank in range(size)]
    ways = product(range(num_micro_batches + 1), repeat=size)
    assert ready(found) == min(ready(way) for way in ways if sum(way) == num_micro_batches)


@given(st.integers(0, 60), st.integers(1, 8), st.integers(1, 1000))
def test_equal_speeds_are_dealt_evenly(num_micro_batches, size, speed):
    lengths = [len(deal(num_micro_batches, rank, size, [speed] * size)) for rank in range(size)]
    assert max(lengths) - min(lengths) <= 1


def test_draws_are_spread_evenly_over_what_there_is():
    available = 7
    draws = Draws(lambda: available, 1000, 300, seed=3)
    counts = np.bincount(draws.batch(0), minlength=7)
    assert len(counts) == 7
    assert counts.min() > 100
    available = 500
    assert draws.batch(0).max() > 480


def test_draws_are_a_function_of_seed_and_step():
    draws, same, other = (Draws(lambda: 100, 20, 8, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(draws.batch(5), same.batch(5))
    assert not np.array_equal(draws.batch(5), draws.batch(6))
    assert not np.array_equal(draws.batch(5), other.batch(5))
    pieces = draws.micro_batches(5)
    assert [len(piece) for piece in pieces] == [8, 8, 4]
    np.testing.assert_array_equal(np.concatenate(pieces), draws.batch(5))
    assert draws.max_micro_batches == 3
