"""Games as pure functions of their states, for networks that learn to play."""

from distnet.games.cart_pole import CartPole
from distnet.games.catch import Catch
from distnet.games.game import Game

__all__ = ["CartPole", "Catch", "Game"]
