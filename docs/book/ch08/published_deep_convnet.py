"""The test digits that the DeepConvNet which the book publishes gets wrong (book section 8.1.1).

The book has had two files of one name in its repository: since 2022 one that was trained for one
epoch, and before, that of the printed book. Their SHA-256 tells them apart.
"""

from __future__ import annotations

import numpy as np
from misclassified_digits import draw_digits, misclassified

from distnet.experiments import Lab, Numbers, Required, exactly, main
from distnet.models import DeepConvNet
from distnet.parallel import RankError

PUBLISHED = "ch08/deep_convnet_params.pkl"

# The beginning of the file's SHA-256: how many digits it gets wrong, and index, label and
# prediction of the first of them.
OF_2022 = ((78, 9, 8), (151, 9, 8), (241, 9, 8), (259, 6, 0))
OF_2016 = (
    *((445, 6, 0), (449, 3, 5), (450, 3, 5), (582, 8, 3), (726, 7, 3)),
    *((900, 1, 3), (947, 8, 9), (1014, 6, 0), (1182, 6, 5), (1226, 7, 2)),
    *((1232, 9, 4), (1260, 7, 1), (1393, 5, 3), (1527, 1, 3), (1621, 0, 6)),
    *((1901, 9, 4), (2070, 7, 9), (2118, 6, 0), (2129, 9, 8), (2130, 4, 9)),
)
WRONG = {"4b7a27ba": (203, OF_2022), "8c81d1d6": (65, OF_2016)}

REQUIRED = [
    Required(
        "A21",
        "the book's DeepConvNet: wrong test digits minus 203 (file of 2022) or 65 (2016)",
        "difference",
        exactly(0),
        needs=PUBLISHED,
    ),
    Required(
        "A24",
        "of the first of them, how many are others than with the book's code",
        "num_others",
        exactly(0),
        needs=PUBLISHED,
    ),
]


def run(lab: Lab) -> Numbers:
    if not lab.has_published(PUBLISHED):
        return {}
    network = DeepConvNet(dtype=np.float64)
    sha256 = lab.load_published(network, PUBLISHED)
    if sha256[:8] not in WRONG:
        raise RankError(f"{PUBLISHED}: found SHA-256 {sha256}, which the book has not published")
    num_wrong, first = WRONG[sha256[:8]]
    images, labels = lab.digits[1]
    wrong = misclassified(network, images, labels)
    lab.picture("misclassified_book", lambda figure: draw_digits(figure, images, wrong), (6.4, 5.6))
    return {
        "sha256": sha256,
        "num_wrong": len(wrong),
        "difference": len(wrong) - num_wrong,
        "num_others": len(set(first) ^ set(map(tuple, wrong[: len(first)].tolist()))),
        "index_label_prediction": wrong,
    }


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
