"""What the experiments on segmentation share: scenes with masks, training, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from distnet.base.arrays import Array
from distnet.data import Samples
from distnet.data.scenes import (
    IGNORED,
    ROAD_CLASSES,
    DigitScenes,
    Part,
    RoadScenes,
    Scenes,
    masked,
)
from distnet.experiments import COLORS, Lab
from distnet.experiments.pictures import DASHES
from distnet.experiments.vision import DIGIT_COLOURS, ROAD_COLOURS
from distnet.nn import Network
from distnet.objectives import Segmentation
from distnet.optim.schedules import cosine
from distnet.training.evaluation import measure
from distnet.training.step.feed import Feed
from distnet.training.watching.history import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 16  # scenes, in two micro-batches
NUM_TEST = 200
MULTIPLE = 8  # three poolings halve the images three times


@dataclass(frozen=True, eq=False)
class Task:
    """Scenes to be segmented: images with masks, the classes, and in which colours they are shown.

    steps: how many batches of scenes there are for training; no scene is seen twice.
    micro_batch_size: scenes in one half of a batch.
    """

    classes: tuple[str, ...]
    colours: Array
    train: Samples
    test: Samples
    steps: int
    micro_batch_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.train.inputs.shape[1:]


def roads(lab: Lab, steps: int, batch_size: int = BATCH) -> Task:
    """Road scenes of 48 x 64 pixels."""
    train, test = (RoadScenes(seed=lab.seed, part=part) for part in Part)
    return _task(lab, train, test, ROAD_CLASSES, ROAD_COLOURS, steps, batch_size)


def digits(lab: Lab, steps: int) -> Task:
    """Scenes of 1 to 3 digits on 64 x 84 pixels without clutter, as those of M2NIST."""
    train, test = (
        DigitScenes(
            samples,
            seed=lab.seed,
            part=part,
            most=3,
            heights=range(16, 29),
            overlap=5,
            clutter=(0, 0),
            noise=13,
        )
        for samples, part in zip(lab.digits, Part, strict=True)
    )
    classes = ("background", *map(str, range(10)))
    return _task(lab, train, test, classes, DIGIT_COLOURS, steps, BATCH)


def _task(
    lab: Lab,
    train: Scenes,
    test: Scenes,
    classes: tuple[str, ...],
    colours: Array,
    steps: int,
    batch_size: int,
) -> Task:
    num_test = NUM_TEST // 4 if lab.quick else NUM_TEST
    counts = steps * batch_size, num_test
    samples = (
        masked(scenes, count, multiple=MULTIPLE)
        for scenes, count in zip((train, test), counts, strict=True)
    )
    return Task(classes, colours, *samples, steps, batch_size // 2)


def trained(lab: Lab, network: Network, task: Task, lr: float = 0.005) -> History:
    """Trains a network on all scenes, each of them once, and evaluates it eight times."""
    network.classes = task.classes
    return lab.fit(
        Segmentation(network),
        *task.train,
        steps=task.steps,
        optimizer="adam",
        lr=cosine(lr, task.steps, warmup=1 / 16),
        batch_size=2 * task.micro_batch_size,
        micro_batch_size=task.micro_batch_size,
        evaluate_on={"test": task.test},
        evaluate_every=task.steps // (1 if lab.quick else 8),
    )


def confusion(lab: Lab, network: Network, task: Task) -> Array:
    """The confusion matrix of all pixels of the test scenes, `(K, K)`."""
    objective = Segmentation(network)
    _, counts = measure(Feed(objective, *task.test), lab.comm, task.micro_batch_size)
    return objective.matrix(counts)


def masks_of(network: Network, images: Array) -> Array:
    """The likeliest class of every pixel, `(N, H, W)`."""
    return network.predict(images).argmax(axis=1)


def draw_masks(figure: Figure, task: Task, networks: dict[str, Network], chosen: list[int]) -> None:
    """A column for each chosen test scene: the scene, its mask, and those of the networks."""
    images, masks = task.test.inputs[chosen], task.test.targets[chosen]
    rows = [("scene", None), ("truth", masks)]
    rows += [(name, masks_of(network, images)) for name, network in networks.items()]
    grid = figure.subplots(len(rows), len(chosen), squeeze=False)
    width = int((masks[0] != IGNORED).any(axis=0).sum())  # without the padding
    for row, (name, classes) in zip(grid, rows, strict=True):
        row[0].set_ylabel(name)
        for column, axes in enumerate(row):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.grid(False)
            if classes is None:
                axes.imshow(picture(images[column])[:, :width], cmap="gray")
            else:
                axes.imshow(task.colours[classes[column, :, :width]])


def picture(image: Array) -> Array:
    """`(C, H, W)` bytes as they are shown: `(H, W)` or `(H, W, 3)`."""
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)


def draw_miou(figure: Figure, histories: dict[str, History]) -> None:
    axes = figure.subplots()
    for (name, history), color, dash in zip(histories.items(), COLORS, DASHES, strict=False):
        values = [each["miou"] for each in history.evaluations["test"]]
        axes.plot(history.num_updates, values, color=color, linestyle=dash, label=name)
    axes.set(xlabel="update", ylabel="mIoU of the test scenes", ylim=(0, 1))
    axes.legend(loc="lower right")


def draw_confusion(figure: Figure, matrix: Array, classes: tuple[str, ...]) -> None:
    """Of the pixels of each class, in a row, the part that is taken for each class."""
    axes = figure.subplots()
    parts = matrix / matrix.sum(axis=1, keepdims=True)
    axes.imshow(np.sqrt(parts), cmap="Blues", vmin=0, vmax=1)
    for t, p in np.ndindex(parts.shape):
        if parts[t, p] >= 0.005:
            color = "white" if parts[t, p] > 0.4 else "black"
            text = f"{100 * parts[t, p]:.0f}"
            axes.text(p, t, text, ha="center", va="center", fontsize="small", color=color)
    numbers = range(len(classes))
    axes.set_xticks(numbers, classes, rotation=90)
    axes.set_yticks(numbers, classes)
    axes.grid(False)
    axes.set(xlabel="taken for", ylabel="pixels of the class")
    axes.set_title("percent of the row", fontsize="medium")
