"""Learning by playing: a run whose samples are made by the network that it trains.

The plan of a run, the same on every rank:

1. Before the first step, and then after every `steps_per_move` of them, each of a fixed number of
   *environments* plays one move: what the network takes for the best one, or now and then a random
   one. What was seen goes to the replay.
2. A step draws a batch out of the replay, and trains on it as on any other data set.
3. At an evaluation, games are played without random moves, by the average of the network.

Environments are logical: their number belongs to the game that is learned, not to the job. All
random numbers are keyed by (seed, move, environment), so every rank plays all environments, and all
have the same replay, without a message. That costs little beside the training, which is shared out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from distnet.base.arrays import Array, read_only
from distnet.base.keys import MicroBatch, Purpose, Words, integers, uniform
from distnet.base.output import warn
from distnet.data.dataset import digest
from distnet.data.replay import Moves, Replay
from distnet.data.sampler import Draws
from distnet.games.game import Game
from distnet.nn.network import Network
from distnet.objectives.q_learning import DoubleDQN
from distnet.optim import Averaged, Schedule, make_optimizer, make_schedule
from distnet.parallel import Communicator, SerialCommunicator, agree, shared_map
from distnet.training.known_answer import expect_same_bits
from distnet.training.own_parts import check_own_layers
from distnet.training.playing_arguments import (
    PlaySettings,
    agree_to_play,
    check,
    check_seen,
    settings_of,
)
from distnet.training.rank_checks import REMEDY, rate_of
from distnet.training.record import Metrics
from distnet.training.run import Callback, Run
from distnet.training.step.assembly import make_trainer
from distnet.training.step.feed import Feed
from distnet.training.step.updates import bounded
from distnet.training.watching.history import History

Values = Callable[[Array], Array]  # from observations (N, ...) to the values of actions (N, A)
Exploration = Callable[[int], float]  # from the number of a move to the part that is random

GAMES_AT_ONCE = 25  # in an evaluation: the piece that one rank plays


class Playing(Callback):
    """Plays beside a run, and puts what it sees into a replay.

    moves_before: moves of each environment before the first step. exploration: the part of moves
    that are random, by the number of the move. mirror: every move counts twice, as it was and as in
    a mirror, see `games.Game.mirrored`.

    results: of each evaluation, the means over `num_games` games: reward and length, in moves.
    """

    def __init__(
        self,
        game: Game,
        objective: DoubleDQN,
        replay: Replay,
        *,
        num_environments: int,
        moves_before: int,
        steps_per_move: int,
        exploration: Exploration,
        mirror: bool,
        num_games: int,
        seed: int,
    ) -> None:
        self.game, self.objective, self.replay = game, objective, replay
        self.moves_before, self.steps_per_move = moves_before, steps_per_move
        self.exploration = exploration
        self.mirror, self.num_games, self.seed = mirror, num_games, seed
        self.results: list[Metrics] = []
        self._starts, self._chances = Words(Purpose.START), Words(Purpose.EXPLORE)
        self.ages = np.zeros(num_environments, np.int64)  # moves since the game began
        self.states = game.start(self._draw(self._starts, 0, game.num_words))
        check_seen(game, game.observe(self.states), num_environments)
        _check_repeats(game, self.states)

    @property
    def num_moves(self) -> int:
        """How many moves each environment has made."""
        return len(self.replay) // self.replay.lanes

    @property
    def arrays(self) -> dict[str, Array]:
        """All that the next move depends on, besides the network, by name."""
        return {"ages": self.ages, "states": self.states, **self.replay.arrays}

    def begin(self, run: Run) -> None:
        self._play_until(run.num_done)

    def stepped(self, run: Run, result: object) -> None:
        self._play_until(run.num_done)

    def evaluated(self, run: Run, evaluated: object) -> None:
        values = self.objective.target
        with np.errstate(all="ignore"):
            found = results(run.comm, self.game, values, self.num_games, self.seed)
        self.results.append(found)

    def noted(self, run: Run, event: str, text: str, **values: object) -> None:
        if run.comm.rank == 0:  # a rank had to be repaired, which is part of the result
            warn(f"learn_to_play: {text}")

    def _play_until(self, num_done: int) -> None:
        """The moves that are due after `num_done` steps, if they have not been made."""
        with np.errstate(all="ignore"):  # what is not finite is found, and told, by the next step
            while self.num_moves < self.moves_before + num_done // self.steps_per_move:
                self._move()

    def _move(self) -> None:
        """One move in every environment."""
        game, number = self.game, self.num_moves
        observations = game.observe(self.states)
        actions = self._actions(observations, number)
        after, rewards, over = _stepped(game, self.states, actions)
        self.ages += 1
        last = over | (self.ages >= game.time_limit)
        moves = Moves(observations, game.observe(after), actions, rewards, over, last)
        self.replay.append(_joined(moves, self._mirrored(moves)) if self.mirror else moves)
        fresh = game.start(self._draw(self._starts, number + 1, game.num_words))
        self.states[...] = np.where(_beside(last, after), fresh, after)
        self.ages[last] = 0

    def _actions(self, observations: Array, number: int) -> Array:
        """What each environment does: at random, or what the network values most."""
        network = self.objective.network
        best = network.forward(network.as_input(observations)).argmax(axis=1)
        words = self._draw(self._chances, number, 2)
        at_random = uniform(words[:, 0]) < self.exploration(number)
        return np.where(at_random, integers(words[:, 1], 0, self.game.num_actions), best)

    def _mirrored(self, moves: Moves) -> Moves:
        """The moves as they are in a mirror."""
        return moves._replace(
            observations=self.game.mirrored(moves.observations),
            following=self.game.mirrored(moves.following),
            actions=self.game.num_actions - 1 - moves.actions,
        )

    def _draw(self, words: Words, move: int, count: int) -> Array:
        """Random words for a move of every environment, (E, count)."""
        environments = range(len(self.ages))
        return np.stack([words.draw(MicroBatch(self.seed, move, e), count) for e in environments])


def falling(least: float, until: float) -> Exploration:
    """From 1 in a straight line to `least`, which it is from the move `until` on."""
    return lambda move: max(least, 1 - (1 - least) * (move / until))


def _stepped(game: Game, states: Array, actions: Array) -> tuple[Array, Array, Array]:
    """`game.step`, with states that it cannot write into, which would spoil the replay.

    Raises ValueError if it returns something else than `Game.step` has to: over as 0 and 1 would be
    taken for the numbers of environments.
    """
    after, rewards, over = game.step(read_only(states), actions)
    shapes, rows = [np.shape(each) for each in (after, rewards, over)], (len(states),)
    if shapes != [states.shape, rows, rows] or np.asarray(over).dtype != bool:
        raise ValueError(
            f"{type(game).__name__}: step returned arrays of shapes {', '.join(map(str, shapes))}, "
            f"the last of {np.asarray(over).dtype}, expected {states.shape}, {rows} and {rows} of "
            "bool: the states after it, the rewards, and whether the game is over"
        )
    return after, rewards, over


def _check_repeats(game: Game, states: Array) -> None:
    """Raises ValueError for a game that makes two things of the same moves."""
    actions = np.arange(len(states)) % game.num_actions
    once, again = (digest(_stepped(game, states, actions)) for _ in range(2))
    if once != again:
        raise ValueError(
            f"{type(game).__name__}: found two outcomes of the same moves, expected one; a game "
            "keeps and draws nothing, but what is random follows from the words of `start`"
        )


def _beside(rows: Array, states: Array) -> Array:
    """What is true of rows, `(N,)`, in the shape in which it goes with `(N, ...)`."""
    return rows.reshape(-1, *[1] * (states.ndim - 1))


def _joined(first: Moves, second: Moves) -> Moves:
    """The rows of the first, then those of the second."""
    return Moves(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def play(
    game: Game, values: Values, games: range, seed: int = 0, seen: list[Array] | None = None
) -> tuple[Array, Array]:
    """Plays the games with these numbers side by side; each move is the one of the largest value.

    seen: receives the states before each move. A game begins as (seed, its number) says,
    and never as one that is learned from. Returns the sum of its rewards and its length in moves,
    `(N,)` each; a game that is over stays where it was, so that all passes have one shape.
    """
    words = Words(Purpose.PLAY)
    starts = [words.draw(MicroBatch(seed, number=number), game.num_words) for number in games]
    states = game.start(np.stack(starts))
    rewards, lengths = np.zeros(len(games)), np.zeros(len(games), np.int64)
    running = np.ones(len(games), bool)
    for _ in range(game.time_limit):
        if seen is not None:
            seen.append(states)
        found = values(game.observe(states))
        if found.shape != (len(games), game.num_actions):
            raise ValueError(
                f"play: found values of shape {found.shape}, expected "
                f"{(len(games), game.num_actions)}, one for each action in each game"
            )
        after, gained, over = _stepped(game, states, found.argmax(axis=1))
        rewards += gained * running
        lengths += running
        running &= ~over
        states = np.where(_beside(running, after), after, states)
        if not running.any():
            break
    return rewards, lengths


def results(comm: Communicator, game: Game, values: Values, num_games: int, seed: int) -> Metrics:
    """The means of reward and length over games 0 to `num_games` - 1, shared out over ranks."""
    pieces = [
        range(start, min(start + GAMES_AT_ONCE, num_games))
        for start in range(0, num_games, GAMES_AT_ONCE)
    ]
    played = shared_map(comm, lambda games: play(game, values, games, seed), pieces)
    rewards, lengths = (np.concatenate(each) for each in zip(*played, strict=True))
    return {
        "reward": math.fsum(rewards) / num_games,  # of any order
        "length": float(lengths.mean()),
        "shortest": float(lengths.min()),
    }


def learn_to_play(
    game: Game, network: Network, *, comm: Communicator | None = None, **settings: Any
) -> History:
    """Teaches `network` to play by Double DQN with Adam, in place; returns what was measured.

    network: from observations to a value for each action. settings: see `PlaySettings`.

    In the end the network is the average of its updates, the target network: what was evaluated.
    Evaluations are called "greedy", see `Playing.results`. All is the same on any number of ranks,
    and, if the network computes in portable arithmetic, on any machine: the game then does, too.
    """
    run, history = arranged(game, network, comm=comm, **settings)
    run.train()
    history.complete(run)
    remedy = "a game or a layer of your own has to do the same on every rank"
    found = {
        "what was played": digest(run.trainer.memory.values()),
        "the parameters after training": history.params_sha256,
    }
    agree(run.comm, found, remedy)
    return history


def arranged(
    game: Game, network: Network, *, comm: Communicator | None = None, **settings: Any
) -> tuple[Run, History]:
    """The run of `learn_to_play` at its first step, and the history that it will fill."""
    comm = SerialCommunicator() if comm is None else comm
    given = settings_of(settings)
    check(game, network, comm, given)
    game = game.compute_in(network.arithmetic)
    optimizer = _averaged_adam(network, given)
    objective = DoubleDQN(network, optimizer.average.values)
    replay = _replay_of(game, network, given)
    playing = Playing(
        game,
        objective,
        replay,
        num_environments=given.num_environments,
        moves_before=given.moves_before,
        steps_per_move=given.steps_per_move,
        exploration=falling(given.explore, given.explore_until * given.num_moves),
        mirror=given.mirror,
        num_games=given.num_games,
        seed=given.seed,
    )
    agree_to_play(comm, game, objective, given)
    check_own_layers(objective, game.observe(playing.states), given.seed)
    if network.arithmetic.rounds:
        expect_same_bits(comm, network.arithmetic)
    trainer = make_trainer(
        objective,
        Feed(objective, replay.moves.observations, replay),
        optimizer=optimizer,
        schedule=_schedule(network, given),
        sampler=Draws(
            lambda: replay.num_complete,
            given.batch_size,
            given.num_rows,
            given.seed,
            steps_per_epoch=given.evaluate_every,
        ),
        seed=given.seed,
        comm=comm,
        memory=playing.arrays,
    )
    agree(comm, rate_of(trainer, range(given.steps)), REMEDY)
    history = History(evaluations={"greedy": playing.results}, optimizer=optimizer)
    run = Run(
        trainer,
        {},
        total_steps=given.steps,
        evaluate_first=True,
        verify_every=0,
        callbacks=[history, playing],
    )
    return run, history


def _averaged_adam(network: Network, settings: PlaySettings) -> Averaged:
    """Its average is the target network."""
    parameters = network.parameters
    adam = make_optimizer(
        "adam",
        parameters.values.size,
        dtype=parameters.dtype,
        arithmetic=network.arithmetic,
        clip_norm=settings.clip_norm,
    )
    return Averaged(bounded(adam, parameters), settings.target_decay, parameters.values)


def _replay_of(game: Game, network: Network, settings: PlaySettings) -> Replay:
    """With room for all moves of the run."""
    lanes = settings.num_environments * (2 if settings.mirror else 1)
    return Replay(
        settings.num_moves * lanes,
        lanes,
        game.observation_shape,
        game.observation_dtype,
        num_steps=settings.num_steps,
        discount=settings.discount,
        arithmetic=network.arithmetic,
    )


def _schedule(network: Network, settings: PlaySettings) -> Schedule:
    if callable(settings.lr):
        return settings.lr
    return make_schedule(
        "linear", settings.lr, settings.steps, warmup=0.0, arithmetic=network.arithmetic
    )
