"""Weight decay against overfitting (book section 6.4.2).

300 digits, six hidden layers, 201 epochs; the gradient of λ/2 sum(W²) with λ = 0.1 pulls all
weights, not the biases, towards zero.
"""

from __future__ import annotations

from overfitting import Remedy, compare, draw, numbers

from distnet.experiments import Lab, Numbers, Required, at_least, at_most, exactly, main

REMEDIES = [Remedy("without"), Remedy("weight_decay", weight_decay=0.1)]

REQUIRED = [
    Required("A14", "without: training accuracy, 3 seeds", "without_train", exactly(1)),
    Required("A14", "without: gap between training and test", "without_gap", at_least(0.22)),
    Required("A14", "weight decay: training accuracy", "weight_decay_train", at_most(0.97)),
    Required("A14", "weight decay: how much smaller the gap is", "gap_closed", at_least(0.03)),
]


def run(lab: Lab) -> Numbers:
    trainings = compare(lab, REMEDIES, epochs=201)
    lab.picture("weight_decay", lambda figure: draw(figure, trainings), size=(8, 3.6))
    found = numbers(trainings)
    return {**found, "gap_closed": found["without_gap"] - found["weight_decay_gap"]}


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
