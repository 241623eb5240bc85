"""A network learns to keep a pole upright, from four numbers a move (DQN, book section 8.5.4).

Double DQN on CartPole: eight environments, 24,512 moves together, five seeds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import COLORS, Lab, Numbers, Required, at_least, main
from distnet.games import CartPole
from distnet.nn import Linear, Network, ReLU
from distnet.training.playing import learn_to_play, play
from distnet.training.watching.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "dqn",
        "CartPole: mean length of 100 games, median of 5 seeds (quick: 1 seed, 2,000 steps)",
        "median",
        at_least(488.7),
        at_least(150),
    ),
]
GAME = CartPole()


def run(lab: Lab) -> Numbers:
    steps, num_seeds = (2_000, 1) if lab.quick else (12_000, 5)
    seeds = [lab.seed + i for i in range(num_seeds)]
    networks = [q_network(seed) for seed in seeds]
    histories = [learned(lab, n, s, steps) for n, s in zip(networks, seeds, strict=True)]
    lengths = [final(history, "length") for history in histories]
    lab.picture("dqn_cart_pole", lambda figure: draw_curves(figure, histories))
    lab.picture("dqn_cart_pole_game", lambda figure: draw_games(figure, networks[0]), (8, 4))
    lab.picture("dqn_cart_pole_values", lambda figure: draw_values(figure, networks[0]), (5, 3.6))
    return {
        "median": float(np.median(lengths)),
        "lengths": lengths,
        "shortest": [final(history, "shortest") for history in histories],
        "untrained": histories[0].evaluations["greedy"][0]["length"],
        "curves": [[e["length"] for e in h.evaluations["greedy"]] for h in histories],
        "params_sha256": [history.params_sha256 for history in histories],
    }


def q_network(seed: int) -> Network:
    """From what is seen to the values of both pushes, which begin near 0."""
    layers = [Linear(128), ReLU(), Linear(128), ReLU(), Linear(2, init=0.01)]
    return Network(layers, GAME.observation_shape, seed=seed)


def learned(lab: Lab, network: Network, seed: int, steps: int) -> History:
    return learn_to_play(
        GAME,
        network,
        steps=steps,
        lr=0.002,
        num_steps=20,
        target_decay=0.98,
        steps_per_move=4,
        mirror=True,
        batch_size=128,
        micro_batch_size=64,
        seed=seed,
        comm=lab.comm,
    )


def final(history: History, metric: str) -> float:
    return history.evaluations["greedy"][-1][metric]


def draw_curves(figure: Figure, histories: list[History]) -> None:
    axes = figure.subplots()
    for number, history in enumerate(histories):
        lengths = [evaluated["length"] for evaluated in history.evaluations["greedy"]]
        axes.plot(history.num_updates, lengths, label=f"seed {number}")
    axes.set(xlabel="step (a move of each environment every 4)", ylim=(0, 510))
    axes.set(ylabel="length of a game (moves, mean of 100)")
    axes.legend(loc="lower right")


def draw_games(figure: Figure, network: Network) -> None:
    """Ten games before training and after it: the pole and the cart, move by move."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, player, color in (("before", q_network(0), 1), ("after", network, 0)):
        states: list[Array] = []
        _, lengths = play(GAME, player.predict, range(10), seen=states)
        for game, length in enumerate(lengths):
            x, _, angle, _ = np.array([each[game] for each in states[:length]]).T
            label = f"{name} training" if game == 0 else None
            style = {"color": COLORS[color], "linestyle": "-", "linewidth": 0.8, "label": label}
            upper.plot(np.degrees(angle), **style)
            lower.plot(x, **style)
    upper.set(ylabel="pole (degrees)", ylim=(-12, 12))
    lower.set(ylabel="cart (m)", ylim=(-2.4, 2.4), xlabel="move")
    upper.legend()


def draw_values(figure: Figure, network: Network) -> None:
    """By how much a push to the right is better, for the cart in the middle, at rest."""
    axes = figure.subplots()
    angles, speeds = np.linspace(-12, 12, 121), np.linspace(-2, 2, 121)
    grid = np.stack(np.meshgrid(np.radians(angles), speeds), axis=-1).reshape(-1, 2)
    states = np.zeros((len(grid), 4))
    states[:, 2:] = grid
    left, right = network.predict(GAME.observe(states)).T
    better = (right - left).reshape(len(speeds), len(angles))
    most = np.abs(better).max()
    image = axes.pcolormesh(angles, speeds, better, cmap="PuOr", vmin=-most, vmax=most)
    axes.contour(angles, speeds, better, [0], colors="black")
    axes.set(xlabel="angle of the pole (degrees)", ylabel="its speed (rad/s)")
    axes.grid(False)
    figure.colorbar(image, label="value of right less value of left")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
