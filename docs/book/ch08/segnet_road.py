"""SegNet says what every pixel of a road scene is (book section 8.5.3).

Its decoder enlarges by max unpooling: values go back to where the maxima were. The numbers tell how
well it finds each class; frames per second, which depend on the machine, are only printed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from segmenting import (
    Task,
    confusion,
    draw_confusion,
    masks_of,
    picture,
    roads,
    trained,
)

from distnet.base.arrays import Array
from distnet.data.scenes import ROAD_CLASSES
from distnet.experiments import DeviceLabOptions, Lab, Numbers, Required, at_least, main, show
from distnet.models import SegNet
from distnet.nn import Network
from distnet.objectives.segmentation import intersection_over_union

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Quick: untrained networks have 0.03 and 0.01; the quick one 0.55 and 0.38, with other seeds and
# kernels at least 0.49 and 0.08. Of all pixels 0.03 are lane markings.
REQUIRED = [
    Required("8.5.3", "mIoU", "miou", at_least(0.85), quick=at_least(0.3)),
    Required("8.5.3", "IoU of the lane markings", "lane_iou", at_least(0.83), quick=at_least(0.05)),
]
STEPS, BATCH, LR = 2_000, 8, 0.005
QUICK = 240, 4, 0.01  # many small steps: the lane markings come last
NUM_TIMED = 100


def run(lab: Lab) -> Numbers:
    steps, batch, lr = QUICK if lab.quick else (STEPS, BATCH, LR)
    task = roads(lab, steps, batch)
    network = lab.compute(SegNet(task.shape, len(task.classes), seed=lab.seed))
    history = trained(lab, network, task, lr)
    matrix = confusion(lab, network, task)
    iou = intersection_over_union(matrix)
    lab.keep("segnet", network)
    if lab.comm.rank == 0:
        rate = frames_per_second(network, task.test.inputs)
        show(lab.comm, [f"{rate:.0f} frames a second, one at a time"])
    lab.picture("segnet_frames", lambda figure: draw_frames(figure, network, task), (4.6, 2.7))
    lab.picture(
        "segnet_confusion", lambda figure: draw_confusion(figure, matrix, task.classes), (5.6, 4.8)
    )
    last = history.evaluations["test"][-1]
    return {
        "miou": last["miou"],
        "lane_iou": iou[ROAD_CLASSES.index("lane")],
        "iou": iou,
        "pixel_accuracy": last["pixel_accuracy"],
        "params_sha256": history.params_sha256,
    }


def frames_per_second(network: Network, frames: Array) -> float:
    network.predict(frames[:1])
    began = time.perf_counter()
    for i in range(NUM_TIMED):
        network.predict(frames[i % len(frames)][None])
    return NUM_TIMED / (time.perf_counter() - began)


def draw_frames(figure: Figure, network: Network, task: Task) -> None:
    """Frames in a strip, and below each what SegNet sees in it, as a colour over the frame."""
    frames = task.test.inputs[4:8]
    masks = masks_of(network, frames)
    grid = figure.subplots(3, len(frames))
    for frame, mask, column in zip(frames, masks, grid.T, strict=True):
        colours, grey = task.colours[mask], picture(frame)
        for axes, shown in zip(
            column, (grey, (colours * 0.6 + grey * 0.4) / 255, colours), strict=True
        ):
            axes.imshow(shown)
            axes.set_axis_off()


if __name__ == "__main__":
    main(__file__, run, REQUIRED, options=DeviceLabOptions)
