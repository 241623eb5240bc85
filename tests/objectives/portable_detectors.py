"""Short trainings of both detectors in portable arithmetic; run, it writes the hash of each."""

from __future__ import annotations

import json

import distnet
from distnet.data import load_dataset
from distnet.data.scenes import DigitScenes, boxed
from distnet.models.faster_rcnn import FasterRCNN
from distnet.models.rcnn import RCNN
from distnet.objectives.detection import Detection, RegionDetection
from distnet.parallel import Communicator, SerialCommunicator

DETECTORS = {"rcnn": (RCNN, RegionDetection), "faster_rcnn": (FasterRCNN, Detection)}
SIZE = (40, 48)


def trained(name: str, comm: Communicator, arithmetic: str = "portable") -> str:
    """The hash of the parameters after two steps of three micro-batches, with an evaluation."""
    model, objective = DETECTORS[name]
    scenes = boxed(DigitScenes(load_dataset("mnist").train, size=SIZE, most=3), 10)
    detector = model((1, *SIZE), arithmetic=arithmetic)
    history = distnet.fit(
        objective(detector),
        scenes.inputs,
        scenes.targets,
        steps=2,
        batch_size=10,
        micro_batch_size=4,
        optimizer="adam",
        lr=0.002,
        comm=comm,
    )
    return history.params_sha256


if __name__ == "__main__":
    print(json.dumps({name: trained(name, SerialCommunicator()) for name in DETECTORS}))
