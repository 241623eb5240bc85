"""What the experiments on captions share: scenes with sentences, training, judging, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.base.arrays import Array
from distnet.base.resampling import scaling
from distnet.data import Samples
from distnet.data.augment import augmentation
from distnet.data.scenes import (
    VOCABULARY,
    DigitGrids,
    Part,
    Scenes,
    caption_scenes,
    captioned,
    digits_of,
    sentence_of,
)
from distnet.experiments import COLORS, Lab, Numbers
from distnet.models import NIC
from distnet.models.nic import captions, decoder_of
from distnet.nn import Network
from distnet.objectives import Captioning
from distnet.objectives.bleu import bleu
from distnet.optim.schedules import cosine
from distnet.parallel import shared_map
from distnet.training.evaluation import measure
from distnet.training.step.feed import Feed
from distnet.training.watching.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NUM_TEST = 2_000
BLOCK = 50  # scenes that a rank looks at in one go
BEAM = 3
LIGHT = 1.0, 0.62, 0.0  # red, green and blue of the light where the network looks
LEVEL = 32  # grey values that are drawn as one, which keeps files small


@dataclass(frozen=True, eq=False)
class Task:
    """Scenes and what is said of them; no scene is seen twice in training.

    batch, micro_batch: scenes of an update, and of a pass over them.
    """

    train: Samples
    test: Samples
    steps: int
    batch: int
    micro_batch: int

    @property
    def length(self) -> int:
        """Words of the longest sentence, with the stop."""
        return self.train.targets.shape[1]


def relations(lab: Lab, steps: int) -> Task:
    """Scenes of one or two digits: "a large three above a small seven"."""
    batch = 16 if lab.quick else 32
    train, test = (
        caption_scenes(digits, seed=lab.seed, part=part)
        for digits, part in zip(lab.digits, Part, strict=True)
    )
    return _task(lab, train, test, steps, batch, 8, captioned)


def grids(lab: Lab, steps: int) -> Task:
    """Grids of 3 x 3 digits (quick: a single digit), to be read row by row.

    Those for training are turned, scaled and moved, each by itself.
    """
    side = 1 if lab.quick else 3
    other = augmentation(rotation=10, scale=0.1, shift=2)
    train, test = (
        DigitGrids(digits, seed=lab.seed, part=part, side=side, augment=augment)
        for digits, part, augment in zip(lab.digits, Part, (other, None), strict=True)
    )

    def read(scenes: Scenes, count: int) -> Samples:
        return captioned(scenes, count, length=side**2 + 1, say=digits_of)

    return _task(lab, train, test, steps, 16, 4, read)


def _task(lab, train, test, steps, batch, micro_batch, describe) -> Task:
    num_test = 100 if lab.quick else NUM_TEST
    parts = describe(train, steps * batch), describe(test, num_test)
    return Task(*parts, steps, batch, micro_batch)


def trained(lab: Lab, task: Task, *, lr: float = 0.004, **options: Any) -> tuple[Network, History]:
    """A network that has seen all scenes, each of them once, and was evaluated four times.

    options: those of `NIC`.
    """
    shape = task.train.inputs.shape[1:]
    network = lab.compute(NIC(shape, len(VOCABULARY), task.length, seed=lab.seed, **options))
    network.classes = VOCABULARY
    history = lab.fit(
        Captioning(network),
        *task.train,
        steps=task.steps,
        optimizer="adam",
        lr=cosine(lr, task.steps, warmup=1 / 32),
        clip_norm=5,
        batch_size=task.batch,
        micro_batch_size=task.micro_batch,
        evaluate_on={"test": task.test},
        evaluate_every=task.steps // (1 if lab.quick else 4),
    )
    return network, history


def said(lab: Lab, network: Network, images: Array, beam: int = 1) -> Array:
    """The words `(N, T)` that the network says; the ranks share the scenes out."""
    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    parts = shared_map(lab.comm, lambda block: captions(network, block, beam), blocks)
    return np.concatenate(parts)


def exact(words: Array, targets: Array) -> float:
    """The part of the sentences that are right to the last word, the stop included."""
    return float((words == np.maximum(targets, 0)).all(axis=1).mean())


def judged(words: Array, targets: Array) -> Numbers:
    """Sentences that are right, BLEU, and the same if each were said of another picture."""
    sentences, wanted = ([sentence_of(row).split() for row in part] for part in (words, targets))
    return {
        "exact": exact(words, targets),
        "bleu4": bleu(sentences, wanted),
        "shuffled": exact(np.roll(words, 1, axis=0), targets),
        "bleu4_shuffled": bleu(sentences[-1:] + sentences[:-1], wanted),
    }


def nats_from_pictures(lab: Lab, network: Network, task: Task) -> float:
    """How much likelier a sentence is with its own picture than with that of the scene before.

    The mean over the test scenes, as a logarithm, in nats. It is 0 for a network that does not
    look, however well it knows the grammar.
    """
    objective, (images, targets) = Captioning(network, presence=0), task.test
    own, other = (
        measure(Feed(objective, seen, targets), lab.comm, BLOCK)[0]
        for seen in (images, np.roll(images, 1, axis=0))
    )
    return (other - own) * objective.divisor(targets) / len(targets)


def draw_said(figure: Figure, task: Task, words: Array, columns: int = 4) -> None:
    """Two rows of scenes that are described rightly, one that are not: below it, what is right."""
    right = (words == np.maximum(task.test.targets, 0)).all(axis=1)
    chosen = [*np.flatnonzero(right)[: 2 * columns], *np.flatnonzero(~right)[:columns]]
    grid = figure.subplots(3, columns).ravel()
    for axes in grid[len(chosen) :]:
        axes.set_visible(False)
    for number, axes in zip(chosen, grid, strict=False):
        _draw_scene(axes, task.test.inputs[number, 0])
        own, wanted = (sentence_of(part[number]) for part in (words, task.test.targets))
        axes.set_title(_two_lines(own), fontsize="small")
        if own != wanted:
            axes.set_xlabel(_two_lines(wanted), fontsize="small", color=COLORS[1])


def draw_attention(figure: Figure, network: Network, task: Task, chosen: list[int]) -> None:
    """A row for each scene: where the network looks for each of its words, as light on it."""
    images = task.test.inputs[chosen]
    network.forward(network.as_input(images))
    decoder = decoder_of(network)
    grid = figure.subplots(len(chosen), decoder.length)
    for row, image, words, looked_at in zip(
        grid, images, decoder.said, decoder.looked_at, strict=True
    ):
        names = [VOCABULARY[word] for word in words if word]
        draw_looks(row, image[0], list(zip(names, looked_at, strict=False)))


def draw_looks(row: Sequence[Axes], image: Array, said: Sequence[tuple[str, Array]]) -> None:
    """For each word, the image with light on it where the network looked, `(H / 4, W / 4)`."""
    for number, axes in enumerate(row):
        if number >= len(said):
            axes.set_visible(False)
            continue
        word, weights = said[number]
        _draw_scene(axes, image)
        light = np.empty((*image.shape, 4))
        light[..., :3] = LIGHT
        light[..., 3] = enlarged(weights / weights.max(), image.shape) * 0.85
        axes.imshow(light)
        axes.set_title(word, fontsize="small")


def enlarged(weights: Array, size: tuple[int, ...]) -> Array:
    """A map of the features as one of the pixels."""
    rows, columns = (scaling(a, b) for a, b in zip(weights.shape, size, strict=True))
    return np.clip(rows @ weights @ columns.T, 0, 1)


def _draw_scene(axes: Axes, image: Array) -> None:
    axes.imshow(image // LEVEL * LEVEL, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)


def _two_lines(sentence: str) -> str:
    """Broken before the relation, or in the middle."""
    words = sentence.split()
    at = next((i for i, word in enumerate(words) if word in ("above", "left", "alone")), None)
    at = len(words) // 2 if at is None else at
    return f"{' '.join(words[:at])}\n{' '.join(words[at:])}"
