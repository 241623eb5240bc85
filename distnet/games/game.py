"""What a game is to those who learn it: states, and pure functions of them.

A game is played in N environments at once, a row of an array each. It holds no state and draws no
random numbers: how a game begins follows from random words that it is given, all else from the
state and the action. So a step of the game is the same bits wherever it is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from numpy.typing import DTypeLike

from distnet.base.arithmetic import Arithmetic
from distnet.base.arrays import Array, Shape


class Game(ABC):
    """A game with `num_actions` actions, numbered from 0.

    observation_shape: what the player sees of a state, as a network reads it; bytes are pixels.
    num_words: random words that the beginning of a game takes.
    time_limit: moves after which a game is stopped; that is not its end: nothing was lost yet.
    """

    observation_shape: Shape
    observation_dtype: DTypeLike
    num_actions: ClassVar[int]
    num_words: int
    time_limit: int

    def compute_in(self, arithmetic: Arithmetic) -> Game:
        """The same game, whose states are computed in an arithmetic: that of the player's network.

        The game itself, unless that makes a difference. Raises ValueError, one line, if it may not
        take part in portable arithmetic.
        """
        arithmetic.check(type(self), type(self).__name__)
        return self

    @abstractmethod
    def start(self, words: Array) -> Array:
        """States `(N, ...)` in which games begin, from random uint64 words `(N, num_words)`."""

    @abstractmethod
    def step(self, states: Array, actions: Array) -> tuple[Array, Array, Array]:
        """One move in each environment: states `(N, ...)`, actions `(N,)`.

        Returns the states after it in a new array, the rewards `(N,)`, float64, and whether the
        game is over, `(N,)` bool.
        """

    @abstractmethod
    def observe(self, states: Array) -> Array:
        """What the player sees, `(N, *observation_shape)` of `observation_dtype`."""

    @abstractmethod
    def mirrored(self, observations: Array) -> Array:
        """The observations as in a mirror, where action a is `num_actions - 1 - a`.

        For games that the mirror leaves as they are: there it makes two experiences out of one.
        """
