"""The replay: n-step returns as one would add them up move by move."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.data.replay import Moves, Replay

LANES, MOVES = 3, 40


def filled(num_steps: int, discount: float = 0.9) -> Replay:
    rng = np.random.default_rng(0)
    replay = Replay(LANES * MOVES, LANES, (2,), np.float32, num_steps=num_steps, discount=discount)
    for _ in range(MOVES):
        over = rng.random(LANES) < 0.1
        last = over | (rng.random(LANES) < 0.1)
        seen, seen_then = rng.random((2, LANES, 2), np.float32)
        actions, rewards = rng.integers(0, 4, LANES), rng.normal(size=LANES)
        replay.append(Moves(seen, seen_then, actions, rewards, over, last))
    return replay


def by_hand(replay: Replay, row: int) -> tuple[float, float, int]:
    """What is earned, the discount after it, and the row where that is."""
    returned, discount = 0.0, 1.0
    for _ in range(replay.num_steps):
        returned += discount * replay.moves.rewards[row]
        discount *= replay.discount
        if replay.moves.last[row]:
            return returned, 0.0 if replay.moves.over[row] else discount, row
        row += replay.lanes
    return returned, discount, row - replay.lanes


@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_returns_are_those_added_up_move_by_move(num_steps):
    replay = filled(num_steps)
    rows = np.arange(replay.num_complete)
    assert len(rows) == LANES * (MOVES - num_steps + 1)
    found = replay[rows]
    for row in rows:
        returned, discount, last = by_hand(replay, row)
        assert found["returned"][row] == pytest.approx(returned, rel=1e-6, abs=1e-6)
        assert found["discount"][row] == pytest.approx(discount, rel=1e-6)
        np.testing.assert_array_equal(found["following"][row], replay.moves.following[last])
    np.testing.assert_array_equal(found["action"], replay.moves.actions[: len(rows)])
    assert 0 < np.count_nonzero(found["discount"] == 0) < len(rows) / 2 or num_steps > 2


def test_a_replay_that_is_full_says_so():
    replay = filled(1)
    more = Moves(*(column[:LANES] for column in replay.moves))
    with pytest.raises(ValueError, match="found 123 rows, expected at most 120"):
        replay.append(more)


def test_nothing_can_be_learned_before_enough_moves_were_made():
    assert Replay(10, 2, (1,), np.uint8, num_steps=4).num_complete == 0


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"discount": 1.5}])
def test_settings_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="expected at least 1 and 0 to 1"):
        Replay(10, 2, (1,), np.uint8, **wrong)
