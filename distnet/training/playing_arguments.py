"""What `learn_to_play` is given, checked once, and compared among the ranks: one line if wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.plain import plain_items
from distnet.games.game import Game
from distnet.nn import arguments
from distnet.nn.network import Network
from distnet.objectives.q_learning import DoubleDQN
from distnet.optim import Schedule
from distnet.parallel import Communicator, agree
from distnet.training.rank_checks import beginning_of, check_numbers


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """How `learn_to_play` goes about it.

    lr: falls to 0 in a straight line, unless it is a schedule of your own. num_steps: how many
    rewards are counted as they came before the target network says what follows. target_decay: how
    much of the target network stays in each step. explore: the part of moves that are random in the
    end, towards which it falls from 1 in a straight line during `explore_until` of all moves.
    micro_batch_size: None, all of a batch at once. For the others see `playing.Playing`.
    """

    steps: int
    lr: float | Schedule
    num_steps: int = 1
    discount: float = 0.99
    target_decay: float = 0.99
    num_environments: int = 8
    moves_before: int = 64
    steps_per_move: int = 1
    explore: float = 0.05
    explore_until: float = 0.3
    mirror: bool = False
    batch_size: int = 64
    micro_batch_size: int | None = None
    clip_norm: float = 10.0
    evaluate_every: int = 1000
    num_games: int = 100
    seed: int = 0

    @property
    def num_rows(self) -> int:
        """The samples of a micro-batch."""
        return self.batch_size if self.micro_batch_size is None else self.micro_batch_size

    @property
    def by_name(self) -> dict[str, object]:
        return vars(self) | {"micro_batch_size": self.num_rows}

    @property
    def num_moves(self) -> int:
        """The moves of each environment in the whole run."""
        return self.moves_before + self.steps // self.steps_per_move


# What settings may be, by name: the least whole number, or what a number has to be.
WHOLE = dict(
    steps=1,
    num_steps=1,
    num_environments=1,
    steps_per_move=1,
    batch_size=1,
    micro_batch_size=1,
    evaluate_every=1,
    num_games=1,
)
PART = "a number from 0 to 1", lambda x: 0 <= x <= 1
REAL = dict(
    lr=("a number >= 0, or a schedule", lambda x: x >= 0),
    discount=PART,
    target_decay=("a number >= 0 and < 1", lambda x: 0 <= x < 1),
    explore=PART,
    explore_until=("a number > 0", lambda x: x > 0),
    clip_norm=("a number >= 0", lambda x: x >= 0),
)


def settings_of(given: Mapping[str, Any]) -> PlaySettings:
    """Raises TypeError for a setting that is not there, and for one that has to be."""
    try:
        return PlaySettings(**given)
    except TypeError as error:  # as if they stood in the head of the function that was called
        raise TypeError(str(error).replace("PlaySettings.__init__", "learn_to_play")) from None


def check(game: object, network: object, comm: object, settings: PlaySettings) -> None:
    """Raises ValueError or TypeError for a game, a network or settings that cannot be."""
    owner = "learn_to_play"
    if not isinstance(game, Game):
        raise TypeError(f"{owner}: found game {game!r:.60}, expected a Game, such as Catch()")
    if not isinstance(network, Network):
        raise TypeError(f"{owner}: found network {network!r:.60}, expected a Network")
    if not hasattr(comm, "processes"):
        raise TypeError(f"{owner}: found comm {comm!r:.60}, expected what distnet.run gives")
    for name, minimum in WHOLE.items():
        arguments.whole(owner, name, settings.by_name[name], minimum)
    arguments.whole(owner, "seed", settings.seed, 0, 2**64 - 1)
    # The first step draws out of moves whose rewards of `num_steps` moves are there.
    least = settings.num_steps
    arguments.whole(f"{owner} with num_steps {least}", "moves_before", settings.moves_before, least)
    for name, (expected, accepts) in REAL.items():
        if not (name == "lr" and callable(settings.lr)):
            arguments.real(owner, name, settings.by_name[name], expected, accepts)
    if not isinstance(settings.mirror, bool):
        raise arguments.refusal(owner, "mirror", settings.mirror, "True or False")
    wanted = tuple(game.observation_shape), (game.num_actions,)
    if (network.input_shape, network.output_shape) != wanted:
        raise ValueError(
            f"{owner}: found a network from {network.input_shape} to {network.output_shape}, "
            f"expected one from what {type(game).__name__} shows, {wanted[0]}, to a value for each "
            f"of its actions, {wanted[1]}"
        )


def check_seen(game: Game, observations: Array, number: int) -> None:
    """Raises ValueError unless a game shows what it says that it does, as the replay keeps that."""
    expected, dtype = (number, *game.observation_shape), np.dtype(game.observation_dtype)
    found = observations.dtype
    if observations.shape != expected or not np.can_cast(found, dtype, "same_kind"):
        raise ValueError(
            f"{type(game).__name__}: observe returned {found} of shape {observations.shape}, "
            f"expected {dtype} of shape {expected}, as observation_dtype and observation_shape say"
        )


def agree_to_play(
    comm: Communicator, game: Game, objective: DoubleDQN, settings: PlaySettings
) -> None:
    """Raises DisagreementError if ranks were given unlike games, networks or settings.

    Of what is no plain data, such as a schedule, nobody can tell.
    """
    check_numbers(comm, objective.parameters)
    told = {
        **plain_items(settings.by_name),
        "the game": type(game).__name__,
        **{f"{name} of the game": value for name, value in plain_items(vars(game)).items()},
        **beginning_of(objective),
    }
    agree(comm, told, "give every rank the same game and settings, and networks of the same seed")
