"""CartPole: a pole on a cart is kept upright by pushes to the left and to the right.

Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements that can solve difficult learning
control problems", with the numbers of gymnasium's `CartPole-v1`, whose states these are to the last
bit. In portable arithmetic, sine and cosine are those of `base.elementary`: a C library's differ in
the last bit from one machine to the next, so there the states are near gymnasium's, and the same
everywhere.
"""

from __future__ import annotations

import copy
import math

import numpy as np

from distnet.base.arithmetic import FLOAT, Arithmetic, portable
from distnet.base.arrays import Array
from distnet.base.keys import uniform
from distnet.games.game import Game

GRAVITY = 9.8  # m/s²
MASS_OF_POLE, MASS = 0.1, 1.1  # kg; the pole's, and that of pole and cart together
HALF_LENGTH = 0.5  # m, of the pole
FORCE = 10.0  # N, to the right by action 1, to the left by action 0
TAU = 0.02  # s, between two moves
FARTHEST = 2.4  # m, of the cart from the middle
STEEPEST = 12 * 2 * math.pi / 360  # of the pole from upright, 12 degrees
START = 0.05  # each number of a state begins between -START and START


@portable
class CartPole(Game):
    """States `(N, 4)`, float64: where the cart is, its speed, the angle of the pole, its speed.

    A game is over when the cart leaves the track or the pole leans too far, and is stopped after
    500 moves. The reward is 0 for every move and -1 for the one that ends the game. (Gymnasium
    gives 1 for every move. Both call for the same play: with discount g a value Q' of theirs is
    -(1 - (1 - g) Q') / g here, which lies between -1 and 0, where a network begins.)
    """

    observation_shape = (4,)
    observation_dtype = np.float32
    num_actions = 2
    num_words = 4
    time_limit = 500

    def __init__(self, arithmetic: Arithmetic = FLOAT) -> None:
        self.arithmetic = arithmetic

    def compute_in(self, arithmetic: Arithmetic) -> Game:
        arithmetic.check(type(self), type(self).__name__)
        game = copy.copy(self)  # of its own class, which may be one that is derived from this
        game.arithmetic = arithmetic
        return game

    def start(self, words: Array) -> Array:
        return START * (2 * uniform(words) - 1)

    def step(self, states: Array, actions: Array) -> tuple[Array, Array, Array]:
        x, x_speed, angle, angle_speed = states.T  # (N,) each
        # Gymnasium's order of operations, on which the last bits depend.
        force = np.where(actions == 1, FORCE, -FORCE)
        cos, sin = self.arithmetic.cos_sin(angle)
        moment = MASS_OF_POLE * HALF_LENGTH
        push = (force + moment * np.square(angle_speed) * sin) / MASS
        angle_acceleration = (GRAVITY * sin - cos * push) / (
            HALF_LENGTH * (4.0 / 3.0 - MASS_OF_POLE * np.square(cos) / MASS)
        )
        x_acceleration = push - moment * angle_acceleration * cos / MASS
        after = np.stack(
            [
                x + TAU * x_speed,
                x_speed + TAU * x_acceleration,
                angle + TAU * angle_speed,
                angle_speed + TAU * angle_acceleration,
            ],
            axis=1,
        )
        over = (np.abs(after[:, 0]) > FARTHEST) | (np.abs(after[:, 2]) > STEEPEST)
        return after, np.where(over, -1.0, 0.0), over

    def observe(self, states: Array) -> Array:
        return states.astype(np.float32)

    def mirrored(self, observations: Array) -> Array:
        return -observations
