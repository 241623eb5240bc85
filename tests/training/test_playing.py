"""Learning by playing: the same bits on any number of ranks, resumed or not; what is random."""

from __future__ import annotations

import numpy as np
import pytest

from distnet.base.arrays import Array
from distnet.data.replay import Moves, Replay
from distnet.games import CartPole, Catch
from distnet.nn import Conv2d, Linear, Network, ReLU
from distnet.objectives.q_learning import DoubleDQN
from distnet.optim.schedules import constant
from distnet.parallel import Communicator, DisagreementError, SerialCommunicator
from distnet.training.playing import Playing, arranged, falling, learn_to_play, play, results
from distnet.training.step.trainer import TrainingDiverged
from distnet.training.watching.history import History

RANKS = [pytest.param(n, marks=pytest.mark.mpi(min_size=n)) for n in (1, 2, 3, 5)]


def cart_pole_network() -> Network:
    return Network([Linear(8), ReLU(), Linear(2)], (4,), seed=1)


def catch_network() -> Network:
    return Network([Conv2d(4, 3, pad=1), ReLU(), Linear(3)], (2, 5, 5), seed=1)


LEARNED = {
    "cart_pole": (CartPole(), cart_pole_network, {"num_steps": 3, "mirror": True}),
    "catch": (Catch(5), catch_network, {"discount": 0.95, "steps_per_move": 2}),
}
# Micro-batches of 8, 8 and 4, so that five ranks have unequal work, and some have none.
SETTINGS = {"lr": 0.01, "batch_size": 20, "micro_batch_size": 8, "moves_before": 6, "seed": 4}


def learned(name: str, comm: Communicator) -> tuple[History, Network]:
    game, make, settings = LEARNED[name]
    network = make()
    settings = {**SETTINGS, **settings, "num_games": 40, "evaluate_every": 7}
    return learn_to_play(game, network, steps=16, **settings, comm=comm), network


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("name", LEARNED)
def test_the_same_bits_on_any_number_of_ranks(name, comm, num_ranks):
    assert comm.size >= num_ranks
    shared, _ = learned(name, comm)
    alone, network = learned(name, SerialCommunicator())
    assert shared == alone
    assert alone.params_sha256 == network.parameters.sha256()
    assert alone.num_updates == [0, 7, 14, 16]
    assert len(alone.evaluations["greedy"]) == 4
    assert alone.losses[-1] != alone.losses[0]


def test_another_seed_plays_other_games():
    game, make, settings = LEARNED["catch"]
    hashes = {
        learn_to_play(game, make(), steps=4, **{**SETTINGS, **settings, "seed": seed}).params_sha256
        for seed in (0, 1, 1)
    }
    assert len(hashes) == 2


def test_a_run_goes_on_from_its_state_with_the_same_bits():
    game, make, settings = LEARNED["cart_pole"]
    settings = {**SETTINGS, **settings, "steps": 12}
    whole, first, second = (arranged(game, make(), **settings)[0] for _ in range(3))
    whole.train()
    first.stop_at = 5
    first.train()
    assert second.trainer.state().keys() == first.trainer.state().keys()
    second.trainer.restore({n: a.copy() for n, a in first.trainer.state().items()})
    second.num_done = 5
    second.train()
    states = [run.trainer.state() for run in (whole, second)]
    assert {n: a.tobytes() for n, a in states[0].items()} == {
        n: a.tobytes() for n, a in states[1].items()
    }
    assert "memory.observations" in states[0]


@pytest.mark.parametrize("name", LEARNED)
def test_in_portable_arithmetic_games_are_near_those_of_float32(name):
    """`benchmarks.golden` holds what its bits are, on any machine."""
    game, make, settings = LEARNED[name]
    settings = {**SETTINGS, **settings, "num_games": 40, "evaluate_every": 4}
    plain = learn_to_play(game, make(), steps=4, **settings)
    portable = learn_to_play(game, make().compute_in("portable"), steps=4, **settings)
    assert portable.params_sha256 != plain.params_sha256
    assert portable.losses[0] == pytest.approx(plain.losses[0], rel=0.05)


class OwnCatch(Catch):
    """A game of a user's own, who has not looked into it."""


def test_a_game_that_may_depend_on_the_machine_is_refused():
    network = catch_network().compute_in("portable", seed=1)
    with pytest.raises(ValueError, match="OwnCatch: not declared portable, so its bits may"):
        learn_to_play(OwnCatch(5), network, steps=1, **SETTINGS)
    learn_to_play(OwnCatch(5), catch_network(), steps=1, **SETTINGS)


class InPlace(CartPole):
    def step(self, states, actions):
        states += 0
        return super().step(states, actions)


def test_a_game_that_changes_the_states_it_is_given_is_refused():
    network = Network([Linear(2)], (4,))
    with pytest.raises(ValueError, match="read-only"):
        learn_to_play(InPlace(), network, steps=1, lr=0.01)
    with pytest.raises(ValueError, match="read-only"):
        play(InPlace(), network.predict, range(2))


class Windy(CartPole):
    """Draws what happens by itself."""

    def step(self, states, actions):
        after, rewards, over = super().step(states, actions)
        return after + self.rng.normal(0, 0.01, after.shape), rewards, over

    rng = np.random.default_rng(0)


def test_what_would_depend_on_the_rank_is_refused():
    with pytest.raises(ValueError, match="Windy: found two outcomes of the same moves, expected"):
        learn_to_play(Windy(), cart_pole_network(), steps=1, **SETTINGS)
    counts = iter(range(10))
    with pytest.raises(ValueError, match="lr: found 0 and then 2 for step 0, expected one learni"):
        settings = {**SETTINGS, "lr": lambda step: next(counts)}
        learn_to_play(CartPole(), cart_pole_network(), steps=3, **settings)


def test_a_game_that_is_over_stays_where_it_was():
    seen: list[Array] = []
    _, lengths = play(CartPole(), lambda x: np.zeros((len(x), 2)), range(7), seen=seen)
    for game, length in enumerate(lengths):
        last = seen[length - 1][game]
        assert all((states[game] == last).all() for states in seen[length:])


@pytest.mark.parametrize("name", LEARNED)
def test_numbers_that_are_not_finite_are_told(name):
    game, make, settings = LEARNED[name]
    settings = {**SETTINGS, **settings, "lr": constant(1e38)}
    with pytest.raises(TrainingDiverged, match=r"step 1: the output of .* is not finite"):
        learn_to_play(game, make(), steps=3, **settings)


def playing_of(game, network, **changed) -> Playing:
    objective = DoubleDQN(network, network.parameters.values.copy())
    lanes = 4 * (1 + changed.get("mirror", False))
    replay = Replay(600 * lanes, lanes, game.observation_shape, game.observation_dtype)
    settings = dict(
        num_environments=4,
        moves_before=6,
        steps_per_move=1,
        exploration=falling(0.1, 50),
        mirror=False,
        num_games=10,
        seed=0,
    )
    return Playing(game, objective, replay, **{**settings, **changed})


def test_fewer_and_fewer_moves_are_random():
    playing = playing_of(CartPole(), cart_pole_network())
    found = [playing.exploration(move) for move in (0, 25, 50, 99)]
    assert found == pytest.approx([1, 0.55, 0.1, 0.1])


def test_moves_that_are_not_random_are_the_best_ones():
    network = cart_pole_network()
    playing = playing_of(CartPole(), network, exploration=falling(0.0, 1e-7))
    playing._play_until(44)
    replay = playing.replay
    rows = slice(4, len(replay))  # all of the first move are random
    best = network.predict(replay.moves.observations[rows]).argmax(axis=1)
    np.testing.assert_array_equal(replay.moves.actions[rows], best)
    assert len(replay) == 4 * 50


def test_a_move_is_made_once_however_often_it_is_asked_for():
    playing = playing_of(CartPole(), cart_pole_network())
    for num_done in (3, 3, 4, 4):
        playing._play_until(num_done)
    assert playing.num_moves == 10


class Stands(CartPole):
    """The cart never moves, so that no game is ever over."""

    time_limit = 5

    def step(self, states: Array, actions: Array) -> tuple[Array, Array, Array]:
        return states.copy(), np.zeros(len(states)), np.zeros(len(states), bool)


def test_a_game_that_is_stopped_is_not_over_and_the_next_one_begins():
    playing = playing_of(Stands(), cart_pole_network())
    playing._play_until(6)
    replay = playing.replay
    last = replay.moves.last[: len(replay)].reshape(-1, 4)
    np.testing.assert_array_equal(np.flatnonzero(last.all(axis=1)), [4, 9])
    assert last.sum() == 8
    assert not replay.moves.over.any()
    first, second = replay.moves.observations[[16, 20]]
    np.testing.assert_array_equal(replay.moves.following[16], first)
    assert np.all(first != second)


def test_what_the_mirror_shows_is_kept_as_well():
    playing = playing_of(CartPole(), cart_pole_network(), mirror=True)
    playing._play_until(0)
    replay, size = playing.replay, 6 * 8
    assert len(replay) == size
    rows = np.arange(size).reshape(6, 2, 4)
    seen, mirrored = rows[:, 0].ravel(), rows[:, 1].ravel()
    first, second = (Moves(*(x[rows] for x in replay.moves)) for rows in (seen, mirrored))
    np.testing.assert_array_equal(second.observations, -first.observations)
    np.testing.assert_array_equal(second.following, -first.following)
    np.testing.assert_array_equal(second.actions, 1 - first.actions)
    np.testing.assert_array_equal(second.rewards, first.rewards)


def follow_the_ball(observations: Array) -> Array:
    """Values of the actions of somebody who sees where the ball is."""
    now = observations[:, 1]
    ball = now[:, :-1].max(axis=1).argmax(axis=1)
    paddle = now[:, -1].argmax(axis=1) + 1
    return -np.abs(ball[:, None] - paddle[:, None] - np.array([-1, 0, 1]))


def test_a_perfect_player_catches_every_ball():
    found = results(SerialCommunicator(), Catch(6), follow_the_ball, 60, seed=0)
    assert found == {"reward": 1.0, "length": 5.0, "shortest": 5.0}


def test_the_reward_of_a_game_is_the_sum_up_to_its_end():
    seen: list[Array] = []
    rewards, lengths = play(Catch(6), lambda x: np.zeros((len(x), 3)), range(80), seen=seen)
    assert set(rewards.tolist()) == {-1, 1}
    assert lengths.tolist() == [5] * 80
    assert [len(states) for states in seen] == [80] * 5
    fallen, lengths = play(CartPole(), lambda x: np.zeros((len(x), 2)), range(7))
    assert fallen.tolist() == [-1] * 7
    assert 8 <= lengths.min() < lengths.max() <= 11


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("moves_before", 0, "a whole number of at least 1"),  # trained on moves nobody had made
        ("moves_before", 2, "with num_steps 3: found moves_before 2"),
        ("explore", -0.1, "a number from 0 to 1"),
        ("explore_until", 0, "a number > 0"),
        ("evaluate_every", 0, "a whole number of at least 1"),
        ("num_games", 0, "a whole number of at least 1"),
        ("steps_per_move", 0, "a whole number of at least 1"),
        ("num_environments", 2.0, "a whole number of at least 1"),
        ("seed", 2**64, "at most 18446744073709551615"),
        ("mirror", "no", "True or False"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(name, value, expected):
    changed = {**SETTINGS, name: value} | ({"num_steps": 3} if "num_steps" in expected else {})
    with pytest.raises(ValueError, match=expected):
        learn_to_play(Catch(5), catch_network(), steps=1, **changed)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(dict(step=1, lr=0.1), "unexpected .* 'step'"), (dict(steps=1), "missing .* 'lr'")],
)
def test_a_setting_that_is_not_there_is_told_of_the_function_that_was_called(settings, expected):
    with pytest.raises(TypeError, match=rf"^learn_to_play\(\) .*{expected}"):
        learn_to_play(Catch(5), catch_network(), **settings)


@pytest.mark.parametrize("num_outputs", [2, 5])
def test_a_network_with_another_number_of_actions_is_refused(num_outputs):
    """The fifth action would have moved the paddle by three."""
    network = Network([Linear(num_outputs)], (2, 5, 5))
    with pytest.raises(ValueError, match=r"to a value for each of its actions, \(3,\)"):
        learn_to_play(Catch(5), network, steps=1, **SETTINGS)


UNLIKE = {
    "drifting of the game": lambda rank: (Catch(5, drifting=rank == 1), catch_network(), {}),
    "lr": lambda rank: (Catch(5), catch_network(), {"lr": 0.01 + 0.01 * (rank == 1)}),
    "evaluate_every": lambda rank: (Catch(5), catch_network(), {"evaluate_every": 3 + rank}),
    "the values that": lambda rank: (Catch(5), Network([Linear(3)], (2, 5, 5), seed=rank), {}),
}


@pytest.mark.mpi(min_size=3)
@pytest.mark.parametrize("what", UNLIKE)
def test_ranks_that_were_given_something_else_are_told(what, comm):
    """Two of three ranks have the majority: the third one was repaired, without a word."""
    game, network, changed = UNLIKE[what](comm.rank)
    with pytest.raises(DisagreementError, match=f"the ranks differ in {what}"):
        learn_to_play(game, network, steps=1, **{**SETTINGS, **changed}, comm=comm)


class ByRank(Catch):
    """A game that is another one on each rank, and does not say so."""

    rank = 0

    def step(self, states, actions):
        after, rewards, over = super().step(states, actions)
        return after, rewards + type(self).rank, over


@pytest.mark.mpi(min_size=2)
def test_ranks_that_come_apart_between_comparisons_are_told(comm, monkeypatch):
    monkeypatch.setattr(ByRank, "rank", comm.rank)
    with pytest.raises(DisagreementError, match="the ranks differ in what was played"):
        learn_to_play(ByRank(5), catch_network(), steps=4, **SETTINGS, comm=comm)


def test_values_of_other_actions_than_the_game_has_are_refused():
    with pytest.raises(
        ValueError, match=r"play: found values of shape \(2, 5\), expected \(2, 3\)"
    ):
        play(Catch(6), lambda x: np.zeros((len(x), 5)), range(2))


class Counts(Catch):
    def step(self, states, actions):
        after, rewards, over = super().step(states, actions)
        return after, rewards, over.astype(int)


class Column(Catch):
    def step(self, states, actions):
        after, rewards, over = super().step(states, actions)
        return after, rewards[:, None], over


class Scaled(Catch):
    def observe(self, states):
        return super().observe(states) / 255


@pytest.mark.parametrize(
    ("game", "expected"),
    [
        (Counts, r"Counts: step returned .* the last of int64, expected .* of bool"),
        (Column, r"Column: step returned arrays of shapes \(8, 2, 4\), \(8, 1\), \(8,\)"),
        (Scaled, r"Scaled: observe returned float64 of shape .*, expected uint8"),
    ],
)
def test_a_game_that_returns_something_else_is_refused(game, expected):
    """All that Scaled shows was 0 in the replay, or 1."""
    with pytest.raises(ValueError, match=expected):
        learn_to_play(game(5), catch_network(), steps=1, **SETTINGS)


def test_a_game_that_is_played_has_to_say_whether_it_is_over():
    with pytest.raises(ValueError, match="Counts: step returned"):
        play(Counts(5), follow_the_ball, range(2))
