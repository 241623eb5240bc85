"""Fully convolutional networks with none, one and two skips (book section 8.4.2).

The class of every pixel of road scenes and of digit scenes. The same network each time, but for
what it may use of the finer stages on the way back to full size.
"""

from __future__ import annotations

from segmenting import Task, confusion, digits, draw_masks, draw_miou, roads, trained

from distnet.experiments import DeviceLabOptions, Lab, Numbers, Required, at_least, main
from distnet.models import FCN
from distnet.nn import Network
from distnet.objectives.segmentation import intersection_over_union
from distnet.training.watching.history import History

# Quick: an untrained network has an mIoU of 0.04 on roads, 0.02 of it from two skips; the quick one
# has 0.41, 0.11 of it from skips (other seeds 0.31 and 0.08). On digits it is 0.02 against 0.12,
# where to see nothing but background gives 0.09, and skips do not tell yet.
REQUIRED = [
    Required("8.4.2", "roads, two skips: mIoU", "road_miou", at_least(0.85), quick=at_least(0.25)),
    Required(
        "8.4.2", "roads: what two skips add", "road_gain", at_least(0.12), quick=at_least(0.05)
    ),
    Required(
        "8.4.2", "digits, two skips: mIoU", "digit_miou", at_least(0.80), quick=at_least(0.095)
    ),
    Required("8.4.2", "digits: what two skips add", "digit_gain", at_least(0.08), only_full=True),
]
STEPS = 500
SKIPS = ("no skip", "one skip", "two skips")


def run(lab: Lab) -> Numbers:
    steps = STEPS // 25 if lab.quick else STEPS
    on_roads = compared(lab, "road", roads(lab, steps), [0, 1, 2])
    on_digits = compared(lab, "digit", digits(lab, steps), [0, 2])
    return on_roads | on_digits


def compared(lab: Lab, name: str, task: Task, numbers_of_skips: list[int]) -> Numbers:
    """The same network with fewer and more skips, trained alike; the last has the most."""
    networks: dict[str, Network] = {}
    histories: dict[str, History] = {}
    for skips in numbers_of_skips:
        network = lab.compute(FCN(task.shape, len(task.classes), skips=skips, seed=lab.seed))
        histories[SKIPS[skips]] = trained(lab, network, task)
        networks[SKIPS[skips]] = network
    lab.keep(f"fcn_{name}", network)
    size = 5.4, 1.04 * (2 + len(networks))
    lab.picture(
        f"fcn_{name}_masks", lambda figure: draw_masks(figure, task, networks, [0, 1, 2]), size
    )
    lab.picture(f"fcn_{name}_miou", lambda figure: draw_miou(figure, histories), (5.4, 3.4))
    last = [history.evaluations["test"][-1] for history in histories.values()]
    miou = [each["miou"] for each in last]
    return {
        f"{name}_miou_by_skips": miou,
        f"{name}_miou": miou[-1],
        f"{name}_gain": miou[-1] - miou[0],
        f"{name}_iou": intersection_over_union(confusion(lab, network, task)),
        f"{name}_pixel_accuracies": [each["pixel_accuracy"] for each in last],
        f"{name}_params_sha256": [history.params_sha256 for history in histories.values()],
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED, options=DeviceLabOptions)
