"""CartPole's states are those of gymnasium, and do not depend on how many are played at once."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.arithmetic import FLOAT, Portable
from distnet.games import CartPole

GAME = CartPole()
ACTIONS = [int(3 * t % 7 > 2) for t in range(30)]
# Gymnasium 1.4.0, CartPole-v1, from START with ACTIONS: the states after so many moves.
START = np.array([[0.01, -0.02, 0.03, 0.04]])
RECORDED = {
    10: [0.017270683924384633, 0.3653873738763101, 0.030063395581679316, -0.43851362721915077],
    20: [0.0862738053040265, 0.3651913468569963, -0.0479568574158917, -0.4343395501026053],
    30: [0.20323309739534212, 0.7700676807235909, -0.22243727292836316, -1.3720485236419733],
}


def random_states(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (n, 4)) * [2.4, 3, 0.2, 3]


def test_states_are_those_that_gymnasium_had():
    states = START
    for number, action in enumerate(ACTIONS, 1):
        states, rewards, over = GAME.step(states, np.array([action]))
        if number in RECORDED:  # sine and cosine may differ by a bit on other processors
            np.testing.assert_allclose(states[0], RECORDED[number], rtol=1e-12)
        assert over[0] == (number == 30)
        assert rewards[0] == (-1 if number == 30 else 0)


def test_states_are_those_of_gymnasium_to_the_last_bit():
    gymnasium = pytest.importorskip("gymnasium", reason="an oracle, the extra `games`")
    theirs = gymnasium.make("CartPole-v1").unwrapped
    theirs.reset(seed=0)
    rng, states, num_games = np.random.default_rng(1), START, 0
    for _ in range(2000):
        theirs.state = states[0].copy()
        action = int(rng.integers(2))
        observation, _, terminated, _, _ = theirs.step(action)
        states, _, over = GAME.step(states, np.array([action]))
        np.testing.assert_array_equal(states[0], theirs.state)
        np.testing.assert_array_equal(GAME.observe(states)[0], observation)
        assert over[0] == terminated
        if over[0]:
            num_games += 1
            theirs.reset()
            states = GAME.start(rng.integers(0, 2**63, (1, 4), np.uint64))
    assert num_games > 50


def test_in_portable_arithmetic_the_states_are_others_only_behind_the_point():
    game = GAME.compute_in(Portable())
    states = START
    for number, action in enumerate(ACTIONS, 1):
        states, _, _ = game.step(states, np.array([action]))
        if number in RECORDED:
            np.testing.assert_allclose(states[0], RECORDED[number], rtol=1e-12)
    # Of this machine and of every other one; NumPy's cosine gives neighbours of these numbers.
    assert [x.hex() for x in states[0].tolist()] == PORTABLE_STATE


PORTABLE_STATE = [
    "0x1.a038ac9638e32p-3",
    "0x1.8a464fa0d42b2p-1",
    "-0x1.c78d31651c25ep-3",
    "-0x1.5f3e9271913dep+0",
]


def test_games_side_by_side_are_the_games_alone():
    states, actions = random_states(13), np.arange(13) % 2
    together = GAME.step(states, actions)
    for i in range(13):
        alone = GAME.step(states[i : i + 1], actions[i : i + 1])
        for all_of_them, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(all_of_them[i : i + 1], one)


def test_the_mirror_of_a_game_is_a_game():
    states, actions = random_states(50), np.arange(50) % 2
    after, rewards, over = GAME.step(states, actions)
    seen, seen_rewards, seen_over = GAME.step(GAME.mirrored(states), 1 - actions)
    np.testing.assert_array_equal(seen, GAME.mirrored(after))
    np.testing.assert_array_equal(seen_rewards, rewards)
    np.testing.assert_array_equal(seen_over, over)


@pytest.mark.parametrize(("column", "limit"), [(0, 2.4), (2, 0.20943951023931953)])
def test_a_game_is_over_beyond_a_limit(column, limit):
    for side in (-1, 1):
        states = np.zeros((2, 4))
        states[:, column] = side * limit * np.array([1 - 1e-9, 1 + 1e-9])
        _, rewards, over = GAME.step(states, np.array([0, 0]))
        assert over.tolist() == [False, True]
        assert rewards.tolist() == [0, -1]


def test_games_begin_near_the_middle():
    words = np.random.default_rng(0).integers(0, 2**64, (1000, 4), np.uint64)
    states = GAME.start(words)
    assert np.abs(states).max() <= 0.05
    assert np.all(states.max(axis=0) > 0.049)
    assert np.all(states.min(axis=0) < -0.049)


class Heavier(CartPole):
    """A game of a user's own."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight


def test_a_game_that_is_derived_stays_what_it_is():
    game = Heavier(3).compute_in(FLOAT)
    assert type(game) is Heavier
    assert game.weight == 3
