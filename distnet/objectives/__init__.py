"""What is trained for: a number to be made small, and what is counted beside it.

An objective is added by its file and one line of `OBJECTIVES`.
"""

from distnet.objectives.adversarial import Adversarial
from distnet.objectives.classification import Classification, balanced_weights
from distnet.objectives.objective import Objective
from distnet.objectives.q_learning import DoubleDQN
from distnet.objectives.regression import Regression
from distnet.objectives.segmentation import Segmentation

OBJECTIVES = {
    "classification": Classification,
    "regression": Regression,
    "segmentation": Segmentation,
}

__all__ = [
    "OBJECTIVES",
    "Adversarial",
    "Classification",
    "DoubleDQN",
    "Objective",
    "Regression",
    "Segmentation",
    "balanced_weights",
]
