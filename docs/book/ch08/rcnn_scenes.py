"""R-CNN: regions that may hold something, each classified by itself (book section 8.4.1)."""

from __future__ import annotations

from detecting import detected, draw_found, judged, save, scenes, truth_of

from distnet.experiments import Lab, Numbers, Required, at_least, main
from distnet.models.rcnn import RCNN
from distnet.objectives.detection import RegionDetection
from distnet.optim.schedules import cosine

REQUIRED = [
    Required(
        "8.4.1",
        "R-CNN: mAP at 0.5 (quick: after 80 updates)",
        "map50",
        at_least(0.88),
        quick=at_least(0.08),
    ),
    Required("8.4.1", "R-CNN: recall of the regions", "recall50", at_least(0.98)),
]
STEPS, BATCH, MICRO_BATCH = 1_500, 8, 4


def run(lab: Lab) -> Numbers:
    steps = 80 if lab.quick else STEPS
    train, test = scenes(lab, steps * BATCH)
    detector = RCNN(seed=lab.seed)
    history = lab.fit(
        RegionDetection(detector),
        *train,
        steps=steps,
        optimizer="adam",
        lr=cosine(0.002, steps, warmup=1 / 20),
        batch_size=BATCH,
        micro_batch_size=MICRO_BATCH,
    )
    found, proposed = detected(lab, detector, test.inputs)
    save(lab, detector, "rcnn")
    lab.picture("rcnn_found", lambda figure: draw_found(figure, test, found, proposed), (7.2, 4.4))
    return {
        **judged(found, proposed, truth_of(test), detector.num_classes),
        "multiply_adds_a_region": detector.network.multiply_adds,
        "params_sha256": history.params_sha256,
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
