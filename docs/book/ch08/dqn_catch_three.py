"""Three balls that drift, and a paddle that cannot reach them all (DQN, book section 8.5.4).

Double DQN on Catch with 20 x 20 pixels and three drifting balls, held against the best that a
player could do who knew beforehand where each ball will land.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.games import Catch
from distnet.games.catch import REACH
from distnet.nn import Conv2d, Linear, Network, ReLU
from distnet.training.playing import learn_to_play, play
from distnet.training.watching.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "catch3",
        "Catch, three balls: part of the best possible (quick: 600 steps)",
        "of_best",
        at_least(0.8),
        at_least(0.2),
    ),
]
GAME = Catch(20, 3, drifting=True)
NUM_GAMES = 500


def run(lab: Lab) -> Numbers:
    network = q_network(lab.seed)
    history = learned(lab, network, lab.seed, 600 if lab.quick else 6_000)
    starts: list[Array] = []
    rewards, _ = play(GAME, network.predict, range(NUM_GAMES), lab.seed, seen=starts)
    best = part_caught(best_rewards(GAME, starts[0]).mean())
    curve = [part_caught(evaluated["reward"]) for evaluated in history.evaluations["greedy"]]
    lab.picture("dqn_catch_three", lambda figure: draw_curve(figure, history, curve, best))
    lab.picture("dqn_catch_three_game", lambda figure: draw_game(figure, network), (9, 0.9))
    caught = part_caught(rewards.mean())
    return {
        "caught": caught,
        "best": best,
        "of_best": caught / best,
        "untrained": curve[0],
        "curve": curve,
        "params_sha256": history.params_sha256,
    }


def q_network(seed: int) -> Network:
    """From the last two frames to the values of left, stay and right."""
    layers = [Conv2d(16, 3, pad=1), ReLU(), Conv2d(32, 3, pad=1, stride=2), ReLU()]
    layers += [Linear(64), ReLU(), Linear(3)]
    return Network(layers, GAME.observation_shape, seed=seed)


def learned(lab: Lab, network: Network, seed: int, steps: int) -> History:
    return learn_to_play(
        GAME,
        network,
        steps=steps,
        lr=0.001,
        num_steps=3,
        discount=0.95,
        mirror=True,
        num_environments=16,
        batch_size=64,
        micro_batch_size=32,
        evaluate_every=max(1, steps // 8),
        num_games=200,
        seed=seed,
        comm=lab.comm,
    )


def part_caught(reward: float) -> float:
    """Of the balls, from the mean reward of a game: a ball is worth 1 or -1."""
    return float((reward / GAME.num_balls + 1) / 2)


def best_rewards(game: Catch, states: Array) -> Array:
    """The largest sum of rewards that can be had from each of the states, `(N,)`.

    By dynamic programming, from the last move to the first: `worth[n, p]` is what game n can still
    bring with the middle of the paddle at p.
    """
    n, places = len(states), np.arange(game.size)
    paddles, landings = states[:, 1, 0], []
    for _ in range(game.time_limit):
        states, _, _ = game.step(states, np.ones(n, np.int64))
        columns, rows, _ = game.balls(states[:, 1])
        landings.append((columns[:, :, None], rows[:, :, None] == game.size - 1))
    worth = np.zeros((n, game.size))
    for columns, landed in reversed(landings):
        caught = landed & (np.abs(columns - places) <= REACH)  # (N, balls, size)
        after = worth + 2 * caught.sum(axis=1) - landed.sum(axis=1)
        reachable = [np.clip(places + step, REACH, game.size - 1 - REACH) for step in (-1, 0, 1)]
        worth = np.max([after[:, place] for place in reachable], axis=0)
    return worth[np.arange(n), paddles]


def draw_curve(figure: Figure, history: History, curve: list[float], best: float) -> None:
    axes = figure.subplots()
    axes.plot(history.num_updates, curve, marker="o", label="the network")
    axes.axhline(best, color="0.5", linestyle="--", label="the best possible")
    axes.set(xlabel="step", ylabel="part of balls caught", ylim=(0, 1))
    axes.legend(loc="lower right")


def draw_game(figure: Figure, network: Network, game: int = 3) -> None:
    """A game, every third move of it."""
    states: list[Array] = []
    play(GAME, network.predict, range(game, game + 1), seen=states)
    boards = [GAME.observe(each)[0, 1] for each in states[::3]]
    for axes, board in zip(figure.subplots(1, len(boards)), boards, strict=True):
        axes.imshow(board)
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(True)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
