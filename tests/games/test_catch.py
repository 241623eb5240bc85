"""Catch, played by hand on small boards: pixels, rewards, walls, several balls."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.games import Catch


def state(paddle, *balls):
    """One environment at rest; balls are (column, row, drift)."""
    columns, rows, drifts = zip(*balls, strict=True)
    now = np.array([[paddle, *columns, *rows, *drifts]])
    return np.stack([now, now], axis=1)


def picture(game, states, frame=1):
    """The first environment as text, a row a word."""
    pixels = game.observe(states)[0, frame]
    return " ".join("".join(".#"[int(value > 0)] for value in row) for row in pixels)


def test_a_ball_falls_and_the_paddle_moves():
    game, states = Catch(4), state(2, (0, 0, 0))
    assert picture(game, states) == "#... .... .... .###"
    states, rewards, over = game.step(states, np.array([0]))
    assert picture(game, states) == ".... #... .... ###."
    assert picture(game, states, frame=0) == "#... .... .... .###"
    assert (rewards.tolist(), over.tolist()) == ([0], [False])
    states, *_ = game.step(states, np.array([0]))  # the paddle is at the wall
    assert picture(game, states) == ".... .... #... ###."
    states, rewards, over = game.step(states, np.array([1]))
    assert (rewards.tolist(), over.tolist()) == ([1], [True])


@pytest.mark.parametrize(("column", "reward"), [(0, -1), (1, 1), (2, 1), (3, 1), (4, -1)])
def test_a_ball_is_caught_by_three_pixels(column, reward):
    _, rewards, over = Catch(5).step(state(2, (column, 3, 0)), np.array([1]))
    assert (rewards.tolist(), over.tolist()) == ([reward], [True])


def test_balls_drift_and_bounce_off_the_walls():
    game = Catch(5, drifting=True)
    states, columns = state(2, (3, 0, 1)), []
    for _ in range(4):
        states, *_ = game.step(states, np.array([1]))
        columns.append(int(states[0, 1, 1]))
    assert columns == [4, 3, 2, 1]


def test_several_balls_come_one_after_another():
    game = Catch(6, 2)
    assert game.spacing == 4
    states, gained, overs = state(1, (1, 0, 0), (5, -4, 0)), [], []
    for move in range(game.time_limit - 1):
        states, rewards, over = game.step(states, np.array([1 if move < 5 else 2]))
        gained.append(int(rewards[0]))
        overs.append(bool(over[0]))
    assert gained == [0, 0, 0, 0, 1, 0, 0, 0, 1]
    assert overs == [False] * 8 + [True]


@pytest.mark.parametrize("game", [Catch(7), Catch(9, 3, drifting=True)])
def test_the_mirror_of_a_game_is_a_game(game):
    rng = np.random.default_rng(0)
    states = game.start(rng.integers(0, 2**64, (40, game.num_words), np.uint64))
    k, side = game.num_balls, game.size - 1
    mirror = states.copy()
    mirror[..., : 1 + k] = side - mirror[..., : 1 + k]
    mirror[..., 1 + 2 * k :] *= -1
    for _ in range(game.time_limit - 1):
        actions = rng.integers(0, 3, 40)
        states, rewards, over = game.step(states, actions)
        mirror, *others = game.step(mirror, 2 - actions)
        np.testing.assert_array_equal(game.observe(mirror), game.mirrored(game.observe(states)))
        for one, other in zip((rewards, over), others, strict=True):
            np.testing.assert_array_equal(one, other)
    assert over.all()


def test_games_begin_anywhere():
    game = Catch(8, 2, drifting=True)
    words = np.random.default_rng(0).integers(0, 2**64, (2000, game.num_words), np.uint64)
    paddle, *balls = game.start(words)[:, 1].T
    assert np.unique(paddle).tolist() == list(range(1, 7))
    assert [np.unique(each).tolist() for each in balls] == [
        *([*range(8)], [*range(8)]),
        *([0], [-5]),
        *([-1, 0, 1], [-1, 0, 1]),
    ]


@pytest.mark.parametrize("sizes", [(3, 1), (10, 0)])
def test_boards_that_make_no_game(sizes):
    with pytest.raises(ValueError, match=r"Catch: found size .* expected at least 4 and 1"):
        Catch(*sizes)
