"""Reads the test digits with the SimpleConvNet that the book publishes (book section 7.5).

The book has had two files of one name in its repository: since 2022 one that was trained for one
epoch, and before, that of the printed book. Their SHA-256 tells them apart.
"""

from __future__ import annotations

import numpy as np

from distnet.experiments import Lab, Numbers, Required, exactly, main
from distnet.models import SimpleConvNet
from distnet.parallel import RankError

PUBLISHED = "ch07/params.pkl"

# The beginning of the file's SHA-256: the accuracy that the book's own code has with it.
ACCURACIES = {"a5da99cf": 0.9600, "290ab40c": 0.9890}

REQUIRED = [
    Required(
        "A18",
        "the book's SimpleConvNet: test accuracy minus 0.9600 (file of 2022) or 0.9890 (2016)",
        "difference",
        exactly(0),
        needs=PUBLISHED,
    )
]


def run(lab: Lab) -> Numbers:
    if not lab.has_published(PUBLISHED):
        return {}
    network = SimpleConvNet(dtype=np.float64)
    sha256 = lab.load_published(network, PUBLISHED)
    if sha256[:8] not in ACCURACIES:
        raise RankError(f"{PUBLISHED}: found SHA-256 {sha256}, which the book has not published")
    train, test = lab.digits
    history = lab.fit(network, *train, steps=0, evaluate_on={"test": test})
    (accuracy,) = history.accuracy("test")
    return {
        "sha256": sha256,
        "test_accuracy": accuracy,
        "difference": accuracy - ACCURACIES[sha256[:8]],
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
