"""Keyed random words: a pure function of what they are for, in any order of drawing."""

import itertools

import numpy as np

from distnet.base.keys import MicroBatch, Purpose, Words, integers, stream, uniform


def of_stream(train, purpose, layer, count):
    source = stream(train.seed, purpose, train.step, train.number, layer)
    return source.random_raw(count)


KEYS = [
    (MicroBatch(seed, step, micro_batch), layer)
    for seed, step, micro_batch, layer in itertools.product((0, 1), (0, 2**40), (0, 7), (0, 3))
]


def test_words_are_those_of_the_stream_in_any_order():
    for purpose in (Purpose.DROPOUT, Purpose.AUGMENT):
        words = Words(purpose)
        for train, layer in [*KEYS, *KEYS[::-1]]:
            for count in (1, 6, 33):  # a generator makes four at a time
                expected = of_stream(train, purpose, layer, count)
                np.testing.assert_array_equal(words.draw(train, count, layer), expected)


def test_all_streams_differ():
    streams = [tuple(of_stream(*key[:1], p, key[1], 4)) for p in Purpose for key in KEYS]
    assert len(set(streams)) == len(Purpose) * len(KEYS)


def test_streams_do_not_run_into_each_other():
    """The first counter word is the stream's own: a long draw never reaches the next layer's."""
    long = of_stream(MicroBatch(), Purpose.DROPOUT, 0, 20_000)
    following = of_stream(MicroBatch(), Purpose.DROPOUT, 1, 4)
    assert not np.isin(following, long).any()


def test_every_bit_of_a_seed_counts():
    seeds = [MicroBatch(seed) for seed in (2**32, 2**63, 2**63 + 1, 2**64 - 1)]
    streams = [of_stream(train, Purpose.DROPOUT, 0, 4) for train in seeds]
    assert len({tuple(words) for words in streams}) == len(seeds)
    for train, expected in zip(seeds, streams, strict=True):
        np.testing.assert_array_equal(Words(Purpose.DROPOUT).draw(train, 4), expected)


def test_numbers_are_spread_evenly():
    words = stream(0, Purpose.DRAW).random_raw(10_000)
    numbers = uniform(words)
    assert 0 <= numbers.min() < 0.001 < 0.999 < numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 0.01
    counts = np.bincount(integers(words, 5, 15), minlength=15)
    assert counts[:5].sum() == 0
    assert counts[5:].min() > 900
    assert len(counts) == 15


def test_the_largest_word_is_below_the_end():
    words = np.array([0, 2**64 - 1], np.uint64)
    assert integers(words, -1, 2).tolist() == [-1, 1]
    assert uniform(words).tolist() == [0, 1 - 2**-53]
