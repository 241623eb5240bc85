"""A network learns to catch a ball from nothing but pixels (DQN, book section 8.5.4).

Double DQN on Catch with 10 x 10 pixels: sixteen environments, 20,224 moves together, three seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.games import Catch
from distnet.nn import Conv2d, Linear, Network, ReLU
from distnet.training.playing import learn_to_play, play
from distnet.training.watching.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "catch",
        "Catch: part of 500 balls that is caught, median of 3 seeds (quick: 1 seed, 600 steps)",
        "median",
        at_least(0.99),
        at_least(0.7),
    ),
]
GAME = Catch(10)


def run(lab: Lab) -> Numbers:
    steps, num_seeds = (600, 1) if lab.quick else (1_200, 3)
    seeds = [lab.seed + i for i in range(num_seeds)]
    networks = [q_network(seed) for seed in seeds]
    histories = [learned(lab, n, s, steps) for n, s in zip(networks, seeds, strict=True)]
    curves = [caught(history) for history in histories]
    lab.picture("dqn_catch", lambda figure: draw_curves(figure, histories))
    lab.picture("dqn_catch_game", lambda figure: draw_game(figure, networks[0]), (9, 2.6))
    final = [curve[-1] for curve in curves]
    return {
        "median": float(np.median(final)),
        "caught": final,
        "untrained": [curve[0] for curve in curves],
        "curves": curves,
        "params_sha256": [history.params_sha256 for history in histories],
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
        discount=0.95,
        num_environments=16,
        explore_until=0.4,
        batch_size=64,
        micro_batch_size=32,
        evaluate_every=100,
        num_games=500,
        seed=seed,
        comm=lab.comm,
    )


def caught(history: History) -> list[float]:
    """Which part of the balls, at each evaluation: a ball is worth 1 or -1."""
    return [(evaluated["reward"] + 1) / 2 for evaluated in history.evaluations["greedy"]]


def draw_curves(figure: Figure, histories: list[History]) -> None:
    axes = figure.subplots()
    for number, history in enumerate(histories):
        axes.plot(history.num_updates, caught(history), label=f"seed {number}")
    axes.set(
        xlabel="step (a move of each environment)", ylabel="part of balls caught", ylim=(0, 1.02)
    )
    axes.legend(loc="lower right")


def draw_game(figure: Figure, network: Network, game: int = 3) -> None:
    """A game from its first frame to its last, and what each action seemed to be worth."""
    states: list[Array] = []
    play(GAME, network.predict, range(game, game + 1), seen=states)
    observations = np.concatenate([GAME.observe(each) for each in states])
    values = network.predict(observations)
    panels = figure.subplots(2, len(states), height_ratios=[2, 1], sharey="row")
    for (board, bars), seen, worth in zip(panels.T, observations[:, 1], values, strict=True):
        board.imshow(seen)
        board.set(xticks=[], yticks=[])
        board.grid(False)
        board.spines[:].set_visible(True)
        colors = ["C1" if action == worth.argmax() else "0.7" for action in range(3)]
        bars.bar(["←", "·", "→"], worth, color=colors)
        bars.tick_params(axis="x", length=0)
    panels[1, 0].set(ylabel="value")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
