"""Catch: balls fall, and a paddle at the bottom has to be under them. It is seen as pixels.

Mnih, Heess, Graves and Kavukcuoglu 2014, "Recurrent models of visual attention",
arXiv:1406.6247, section 4.3, play it with one ball.
"""

from __future__ import annotations

import numpy as np

from distnet.base.arithmetic import portable
from distnet.base.arrays import Array
from distnet.base.keys import integers
from distnet.games.game import Game

REACH = 1  # the paddle covers its middle and so many pixels on each side


@portable
class Catch(Game):
    """A board of `size` x `size` pixels; actions: 0 to the left, 1 stay, 2 to the right.

    A ball falls a pixel a move; with several of them, each begins when the one before it is
    `size // num_balls + 1` rows ahead. `drifting` balls also move by -1, 0 or 1 to the side in each
    move, and bounce off the walls. A ball that reaches the bottom row gives the reward 1 if it is
    caught, else -1; after the last one the game is over.

    States `(N, 2, 1 + 3 num_balls)`, int64, the one before the last move and the one after it: the
    middle of the paddle, then the columns of the balls, their rows and their drifts. Observations
    are both as pictures, `(N, 2, size, size)` bytes, so that motion can be seen.
    """

    observation_dtype = np.uint8
    num_actions = 3

    def __init__(self, size: int = 10, num_balls: int = 1, *, drifting: bool = False) -> None:
        if size < 4 or num_balls < 1:
            raise ValueError(
                f"Catch: found size {size} and {num_balls} balls, expected at least 4 and 1"
            )
        self.size, self.num_balls, self.drifting = size, num_balls, drifting
        self.observation_shape = (2, size, size)
        self.num_words = 1 + 2 * num_balls
        self.spacing = size // num_balls + 1
        self.time_limit = size + (num_balls - 1) * self.spacing

    def start(self, words: Array) -> Array:
        n, k = len(words), self.num_balls
        paddle = integers(words[:, :1], REACH, self.size - REACH)
        columns = integers(words[:, 1 : 1 + k], 0, self.size)
        rows = np.broadcast_to(-self.spacing * np.arange(k), (n, k))
        drifts = integers(words[:, 1 + k :], -1, 2) * self.drifting
        now = np.concatenate([paddle, columns, rows, drifts], axis=1)
        return np.stack([now, now], axis=1)

    def step(self, states: Array, actions: Array) -> tuple[Array, Array, Array]:
        before = states[:, 1]
        paddle, (columns, rows, drifts) = before[:, :1], self.balls(before)
        paddle = np.clip(paddle + actions[:, None] - 1, REACH, self.size - 1 - REACH)
        rows = rows + 1
        columns = np.where(rows > 0, columns + drifts, columns)
        outside = (columns < 0) | (columns >= self.size)
        drifts = np.where(outside, -drifts, drifts)
        columns = np.where(outside, columns + 2 * drifts, columns)
        landed = rows == self.size - 1
        caught = landed & (np.abs(columns - paddle) <= REACH)
        now = np.concatenate([paddle, columns, rows, drifts], axis=1)
        rewards = 2.0 * caught.sum(axis=1) - landed.sum(axis=1)
        return np.stack([before, now], axis=1), rewards, rows[:, -1] >= self.size - 1

    def observe(self, states: Array) -> Array:
        n, k = len(states), self.num_balls
        flat = states.reshape(2 * n, -1)
        pictures = np.zeros((2 * n, self.size, self.size), np.uint8)
        columns, rows, _ = self.balls(flat)
        seen = (rows >= 0) & (rows < self.size)
        picture = np.repeat(np.arange(2 * n)[:, None], k, axis=1)
        pictures[picture[seen], rows[seen], columns[seen]] = 255
        for side in range(-REACH, REACH + 1):
            pictures[np.arange(2 * n), -1, flat[:, 0] + side] = 255
        return pictures.reshape(n, 2, self.size, self.size)

    def mirrored(self, observations: Array) -> Array:
        return observations[..., ::-1]

    def balls(self, states: Array) -> tuple[Array, Array, Array]:
        """Columns, rows and drifts of the balls, `(N, num_balls)` each."""
        k = self.num_balls
        return states[:, 1 : 1 + k], states[:, 1 + k : 1 + 2 * k], states[:, 1 + 2 * k :]
