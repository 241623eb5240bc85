"""What is trained for: a number to be made small, and what is counted beside it.

An objective is added by its file. `OBJECTIVES` has, by name, those that are made of a network
alone, `OBJECTIVES[name](network)`; others need something of their own: a second network, a detector
made of several, the values of a target.
"""

from distnet.objectives.adversarial import Adversarial
from distnet.objectives.captioning import Captioning
from distnet.objectives.classification import Classification, balanced_weights
from distnet.objectives.detection import Detection, RegionDetection
from distnet.objectives.objective import Objective
from distnet.objectives.q_learning import DoubleDQN
from distnet.objectives.regression import Regression
from distnet.objectives.segmentation import Segmentation
from distnet.objectives.style import StyleTransfer

OBJECTIVES = {
    "captioning": Captioning,
    "classification": Classification,
    "regression": Regression,
    "segmentation": Segmentation,
}

__all__ = [
    "OBJECTIVES",
    "Adversarial",
    "Captioning",
    "Classification",
    "Detection",
    "DoubleDQN",
    "Objective",
    "RegionDetection",
    "Regression",
    "Segmentation",
    "StyleTransfer",
    "balanced_weights",
]
