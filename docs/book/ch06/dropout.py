"""Dropout against overfitting, in today's form and in the book's (book section 6.4.3).

300 digits, six hidden layers with dropout of ratio 0.2 after each, 301 epochs. Today's form scales
up what it keeps; the book's leaves it as it is and scales everything down in evaluation. So shrunk,
its network learns more slowly, and the small gap that the book shows comes from there.
"""

from __future__ import annotations

import numpy as np
from overfitting import Remedy, compare, draw, numbers

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, main
from distnet.nn import Dropout, MicroBatch

RATIO = 0.2

REQUIRED = [
    Required("A15", "without: gap between training and test", "without_gap", at_least(0.22)),
    Required(
        "A15",
        "the book's dropout: gap (quick: one seed)",
        "dropout_of_the_book_gap",
        at_most(0.18),
        quick=at_most(0.22),
    ),
    Required("6.4.3", "dropout: training accuracy, 3 seeds", "dropout_train", at_least(0.9)),
    Required(
        "6.4.3", "the book's dropout: training accuracy", "dropout_of_the_book_train", at_most(0.8)
    ),
]


class DropoutOfTheBook(Dropout):
    """Keeps elements unscaled in training, multiplies all by 1 - ratio in evaluation."""

    @property
    def scale(self) -> np.floating:
        return self.dtype.type(1)

    def forward(self, x: Array, out: Array | None = None, at: MicroBatch | None = None) -> Array:
        y = super().forward(x, out, at)
        return y if at else np.multiply(y, 1 / super().scale, out=y)


REMEDIES = [
    Remedy("without"),
    Remedy("dropout", dropout=lambda: Dropout(RATIO)),
    Remedy("dropout_of_the_book", dropout=lambda: DropoutOfTheBook(RATIO)),
]


def run(lab: Lab) -> Numbers:
    trainings = compare(lab, REMEDIES, epochs=301)
    lab.picture("dropout", lambda figure: draw(figure, trainings), size=(9, 3.4))
    return numbers(trainings)


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
