"""What players have experienced, move by move, as a data set that grows: experience replay.

Lin 1992, "Self-improving reactive agents based on reinforcement learning, planning and teaching",
Machine Learning 8; Mnih et al. 2015, "Human-level control through deep reinforcement learning",
Nature 518, who learn from batches drawn out of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from distnet.base.arithmetic import FLOAT, Arithmetic
from distnet.base.arrays import Array, Shape


class Moves(NamedTuple):
    """Moves in several games: arrays with a row `(...)` for each.

    observations, following: what was seen before and after it. actions: int64. rewards: float64.
    over: the game was over, no reward can follow. last: over, or stopped; the next is another game.
    """

    observations: Array
    following: Array
    actions: Array
    rewards: Array
    over: Array
    last: Array


class Replay:
    """The moves of `lanes` games that are played side by side, in the order in which they came.

    Row `lanes * t + e` is move t of lane e, so that the next move of the lane is `lanes` rows on.
    Nothing is forgotten. Indexed by rows `(N,)` it gives `transitions`.

    capacity: rows that there is place for. num_steps: the n of n-step returns. discount: by which a
    reward counts less for each move that it is later. arithmetic: in which rewards are added up.
    moves: `Moves` of all rows. arrays: all that is in it, by name.
    """

    def __init__(
        self,
        capacity: int,
        lanes: int,
        shape: Shape,
        dtype: DTypeLike,
        *,
        num_steps: int = 1,
        discount: float = 0.99,
        arithmetic: Arithmetic = FLOAT,
    ) -> None:
        if num_steps < 1 or not 0 <= discount <= 1:
            raise ValueError(
                f"Replay: found {num_steps} steps and discount {discount}, expected at least 1 "
                "and 0 to 1"
            )
        self.lanes, self.num_steps, self.discount = lanes, num_steps, discount
        self._sum = arithmetic.sum
        self._powers = arithmetic.powers(discount, num_steps + 1)
        self.moves = Moves(
            observations=np.zeros((capacity, *shape), dtype),
            following=np.zeros((capacity, *shape), dtype),
            actions=np.zeros(capacity, np.int64),
            rewards=np.zeros(capacity, np.float64),
            over=np.zeros(capacity, bool),
            last=np.zeros(capacity, bool),
        )
        self._size = np.zeros(1, np.int64)
        self.transition = np.dtype(
            [
                ("action", np.int64),
                ("returned", np.float32),
                ("discount", np.float32),
                ("following", dtype, shape),
            ]
        )

    def __len__(self) -> int:
        """Rows that are filled."""
        return int(self._size[0])

    @property
    def num_complete(self) -> int:
        """Rows whose next `num_steps` moves are there, too: those that can be learned from."""
        return max(0, len(self) - (self.num_steps - 1) * self.lanes)

    @property
    def arrays(self) -> dict[str, Array]:
        return self.moves._asdict() | {"size": self._size}

    def append(self, moves: Moves) -> None:
        """A move of every lane: `lanes` rows. Raises ValueError if the replay is full."""
        start, stop = len(self), len(self) + self.lanes
        capacity = len(self.moves.actions)
        if stop > capacity:
            raise ValueError(f"Replay: found {stop} rows, expected at most {capacity}")
        for column, new in zip(self.moves, moves, strict=True):
            column[start:stop] = new
        self._size[0] = stop

    def __getitem__(self, rows: Array) -> Array:
        """What is learned from `rows` `(N,)`, each below `num_complete`: a structured array `(N,)`.

        action: of the row. returned: the rewards of the next n moves, or of those to the end of the
        game, each times the discount to the power of how many moves later it came (Sutton 1988;
        Mnih et al. 2016, arXiv:1602.01783, section 4). following: what was seen then. discount: by
        which all rewards after that count less; 0 if the game was over.
        """
        n = len(rows)
        moves = self.moves
        ahead = rows + self.lanes * np.arange(self.num_steps)[:, None]  # (num_steps, N)
        ended = np.logical_or.accumulate(moves.last[ahead], axis=0)
        played = np.ones(ahead.shape, bool)  # whether the move belongs to the same game
        played[1:] = ~ended[:-1]
        length = played.sum(axis=0)  # (N,)
        final = ahead[length - 1, np.arange(n)]
        result = np.empty(n, self.transition)
        result["action"] = moves.actions[rows]
        rewards = self._powers[:-1, None] * moves.rewards[ahead] * played
        result["returned"] = self._sum(rewards, axis=0)
        result["discount"] = np.where(moves.over[final], 0.0, self._powers[length])
        result["following"] = moves.following[final]
        return result
