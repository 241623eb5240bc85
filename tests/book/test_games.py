"""The experiments of section 8.5.4: what they train is the same on two ranks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from distnet.experiments import Lab, load
from distnet.games import Catch
from distnet.parallel import SerialCommunicator

CHAPTER = Path(__file__).resolve().parents[2] / "docs" / "book" / "ch08"


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["dqn_cart_pole", "dqn_catch"])
def test_a_player_is_the_same_on_two_ranks(name, comm, tmp_path):
    script = load(CHAPTER / f"{name}.py")
    shared, alone = (
        script.learned(Lab(ranks, tmp_path), script.q_network(3), 3, 50)
        for ranks in (comm, SerialCommunicator())
    )
    assert shared == alone
    assert shared.params_sha256 != script.q_network(3).parameters.sha256()


def test_no_player_does_better_than_the_best():
    """All 3^9 ways to play the last nine moves, in which three balls land."""
    script = load(CHAPTER / "dqn_catch_three.py")
    game, rng = Catch(9, 3, drifting=True), np.random.default_rng(0)
    states = game.start(rng.integers(0, 2**64, (12, game.num_words), np.uint64))
    for _ in range(7):
        states, *_ = game.step(states, rng.integers(0, 3, 12))
    plans, best = np.array(list(itertools.product(range(3), repeat=9))), []
    for state in states:
        played, total = np.broadcast_to(state, (len(plans), *state.shape)), np.zeros(len(plans))
        for actions in plans.T:
            played, rewards, over = game.step(played, actions)
            total += rewards
        assert over.all()
        best.append(total.max())
    assert len(set(best)) > 1
    np.testing.assert_array_equal(script.best_rewards(game, states), best)
