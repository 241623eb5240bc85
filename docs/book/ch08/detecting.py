"""What the experiments on detection share: scenes with boxes, judging, pictures, files."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

import distnet
from distnet.base.arrays import Array, Shape
from distnet.data import Samples
from distnet.data.scenes import DigitScenes, Part, boxed, unpadded
from distnet.experiments import COLORS, Lab, Numbers
from distnet.experiments.vision import draw_boxes
from distnet.models.faster_rcnn import FasterRCNN
from distnet.models.rcnn import RCNN
from distnet.nn import Network
from distnet.nn.boxes import Detections
from distnet.objectives.average_precision import (
    average_precisions,
    precision_recall,
    recall_of,
)
from distnet.parallel import shared_map
from distnet.training.files.checkpoint import CheckpointError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_TEST = 400
BLOCK = 8  # scenes that a rank looks at in one go
SHOWN = 4
LEVEL = 64  # grey values that are drawn as one, which hides the noise and keeps files small
SURE = 0.5  # the score from which on a detection is drawn

Truth = list[tuple[Array, Array]]  # the boxes (M, 4) and labels (M,) of each scene


class Detector(Protocol):
    """An `RCNN` or a `FasterRCNN`."""

    input_shape: Shape
    num_classes: int

    @property
    def networks(self) -> dict[str, Network]: ...
    def detect(self, images: Array) -> tuple[list[Detections], list[Array]]: ...


def scenes(lab: Lab, num_train: int) -> tuple[Samples, Samples]:
    """Scenes of 1 to 5 digits among clutter: so many for training, and 400 for the test."""
    counts = (num_train, 24 if lab.quick else NUM_TEST)
    train, test = (
        boxed(DigitScenes(samples, seed=lab.seed, part=part), count)
        for samples, part, count in zip(lab.digits, Part, counts, strict=True)
    )
    return train, test


def truth_of(test: Samples) -> Truth:
    return [unpadded(objects) for objects in test.targets]


def detected(lab: Lab, detector: Detector, images: Array) -> tuple[list[Detections], list[Array]]:
    """What is found in all scenes, and what was proposed; the ranks share the scenes out."""
    blocks = [images[start : start + BLOCK] for start in range(0, len(images), BLOCK)]
    parts = shared_map(lab.comm, detector.detect, blocks)
    found = [each for part, _ in parts for each in part]
    return found, [each for _, part in parts for each in part]


def judged(
    found: Sequence[Detections], proposed: Sequence[Array], truth: Truth, num_classes: int
) -> Numbers:
    """mAP at an overlap of 0.5 and 0.75, and how many of the objects were proposed."""
    at_half, at_three_quarters = (
        average_precisions(found, truth, num_classes, threshold) for threshold in (0.5, 0.75)
    )
    return {
        "map50": np.nanmean(at_half),
        "map75": np.nanmean(at_three_quarters),
        "ap50": at_half,
        "recall50": recall_of(proposed, truth),
        "recall75": recall_of(proposed, truth, 0.75),
        "mean_proposals": np.mean([len(boxes) for boxes in proposed]),
        "most_proposals": max(len(boxes) for boxes in proposed),
    }


def seconds_a_scene(detectors: dict[str, Detector], images: Array, rounds: int = 3) -> list[float]:
    """Of each detector the least of some rounds, in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(rounds):
        for name, detector in detectors.items():
            began = time.process_time()
            detector.detect(images)
            times[name].append((time.process_time() - began) / len(images))
    return [min(each) for each in times.values()]


def draw_found(
    figure: Figure, test: Samples, found: Sequence[Detections], proposed: Sequence[Array]
) -> None:
    """Scenes with their true boxes, with what was proposed, and with what was found."""
    grid = figure.subplots(3, SHOWN)
    truth = truth_of(test)
    for number, column in enumerate(grid.T):
        sure = found[number].scores >= SURE
        boxes, scores, labels = (part[sure] for part in found[number])
        names = [f"{k} {s:.2f}" for k, s in zip(labels, scores, strict=True)]
        rows = [
            ("truth", *truth[number], COLORS[5]),
            ("proposals", proposed[number], [""] * len(proposed[number]), COLORS[4]),
            ("found", boxes, names, "#7CFC9A"),
        ]
        for axes, (name, boxes, labels, colour) in zip(column, rows, strict=True):
            grey = test.inputs[number, 0] // LEVEL * LEVEL
            axes.imshow(grey, cmap="gray", vmin=0, vmax=255 - LEVEL)
            draw_boxes(axes, boxes, map(str, labels), colour)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.grid(False)
            if number == 0:
                axes.set_ylabel(name)


def draw_curves(figure: Figure, found: Sequence[Detections], truth: Truth) -> None:
    """Precision against recall, a curve for each digit."""
    axes = figure.subplots()
    for label in range(10):
        curve = precision_recall(found, truth, label, 0.5)
        color, style = COLORS[label % 6], "-" if label < 6 else "--"
        name = f"{label}: {curve.average_precision:.3f}"
        axes.plot(curve.recall, curve.precision, color=color, linestyle=style, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0.5, 1), ylim=(0.5, 1.01))
    axes.legend(title="average precision", ncols=2, loc="lower left", fontsize="small")


def save(lab: Lab, detector: Detector, name: str) -> None:
    """A folder with a file for each of the networks."""
    for part, network in detector.networks.items():
        lab.keep(f"{name}/{part}", network)


def load(folder: Path) -> Detector:
    """The detector that `save` wrote; raises CheckpointError if there is no such one."""
    one_network = (folder / "network.safetensors").exists()
    detector: Detector = RCNN() if one_network else FasterRCNN()
    for part, network in detector.networks.items():
        path = folder / f"{part}.safetensors"
        if not path.exists():
            raise CheckpointError(
                f"{path}: found no file, expected MODEL to be a folder that an experiment of "
                "section 8.4.1 wrote, such as runs/book/faster_rcnn"
            )
        saved = distnet.load(path)
        try:
            network.parameters.load(saved.parameters.named())
        except ValueError as error:
            raise CheckpointError(f"{path}: found another network ({error})") from None
    return detector
