"""Faster R-CNN: one network reads the scene, proposes regions and classifies them (section 8.4.1).

How long a scene takes, beside R-CNN, depends on the machine and is only printed; how much has to be
multiplied is among the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from detecting import (
    detected,
    draw_curves,
    draw_found,
    judged,
    save,
    scenes,
    seconds_a_scene,
    truth_of,
)

from distnet.experiments import COLORS, Lab, Numbers, Required, at_least, at_most, main, show
from distnet.models.faster_rcnn import NUM_PROPOSALS, FasterRCNN
from distnet.models.rcnn import RCNN, region_proposals
from distnet.objectives.detection import Detection
from distnet.optim.schedules import cosine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REQUIRED = [
    Required(
        "8.4.1",
        "mAP at 0.5 (quick: after 200 updates)",
        "map50",
        at_least(0.92),
        quick=at_least(0.2),
    ),
    Required("8.4.1", "mAP at 0.75", "map75", at_least(0.84), quick=at_least(0.1)),
    Required("8.4.1", "recall of the proposals", "recall50", at_least(0.98), quick=at_least(0.8)),
    Required("8.4.1", "proposals of a scene, at most", "most_proposals", at_most(24)),
    Required("8.4.1", "multiply-adds of R-CNN, times as many", "times_less_work", at_least(5)),
]
STEPS, BATCH, MICRO_BATCH = 1_200, 16, 4
NUM_TIMED = 24


def run(lab: Lab) -> Numbers:
    steps, batch_size = (200, BATCH // 2) if lab.quick else (STEPS, BATCH)
    train, test = scenes(lab, steps * batch_size)
    detector = FasterRCNN(seed=lab.seed)
    history = lab.fit(
        Detection(detector),
        *train,
        steps=steps,
        optimizer="adam",
        lr=cosine(0.002, steps, warmup=1 / 12),
        batch_size=batch_size,
        micro_batch_size=MICRO_BATCH,
    )
    found, proposed = detected(lab, detector, test.inputs)
    save(lab, detector, "faster_rcnn")
    work, of_rcnn = work_of(detector), work_of_rcnn(test.inputs)
    if lab.comm.rank == 0:
        rivals = {"Faster R-CNN": detector, "R-CNN": RCNN()}
        mine, other = seconds_a_scene(rivals, test.inputs[:NUM_TIMED])
        line = f"{1e3 * mine:.1f} ms a scene, R-CNN {1e3 * other:.1f} ms: {other / mine:.1f} times"
        show(lab.comm, [line])
    size = 7.2, 4.4
    lab.picture("faster_found", lambda figure: draw_found(figure, test, found, proposed), size)
    truth = truth_of(test)
    lab.picture("faster_curves", lambda figure: draw_curves(figure, found, truth), (5.4, 4.0))
    lab.picture("faster_work", lambda figure: draw_work(figure, work, of_rcnn), (6.4, 2.2))
    return {
        **judged(found, proposed, truth, detector.num_classes),
        "multiply_adds_by_part": list(work.values()),
        "multiply_adds_of_rcnn": of_rcnn,
        "times_less_work": of_rcnn / sum(work.values()),
        "params_sha256": history.params_sha256,
    }


def work_of(detector: FasterRCNN) -> dict[str, int]:
    """The multiply-adds of a scene, by part."""
    channels, rows, columns = detector.trunk.output_shape
    p, r = detector.size, NUM_PROPOSALS
    align = r * p * channels * (rows * columns + p * columns)
    return {
        "trunk": detector.trunk.multiply_adds,
        "proposals": detector.proposer.multiply_adds,
        "RoI align": align,
        "heads": r * detector.head.multiply_adds,
    }


def work_of_rcnn(images: np.ndarray) -> int:
    """The multiply-adds of R-CNN's network for a scene, by the mean number of regions."""
    num_regions = np.mean([len(region_proposals(image[0])) for image in images])
    return round(num_regions * RCNN().network.multiply_adds)


def draw_work(figure: Figure, work: dict[str, int], of_rcnn: int) -> None:
    axes = figure.subplots()
    axes.barh(["R-CNN"], [of_rcnn / 1e6], color=COLORS[5])
    axes.text(of_rcnn / 2e6, 0, "the network, once for each region", ha="center", va="center")
    left = 0.0
    for (name, count), color in zip(work.items(), COLORS, strict=False):
        axes.barh(["Faster R-CNN"], [count / 1e6], left=left, color=color, label=name)
        left += count / 1e6
    axes.set(xlabel="million multiply-adds a scene")
    axes.invert_yaxis()
    axes.legend(loc="lower right", fontsize="small", ncols=2)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
