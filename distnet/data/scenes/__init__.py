"""Scenes that are drawn from a seed: pictures, and the boxes, masks and captions that go with them.

A scene is a pure function of (seed, part, number), so that any rank draws any of them in any order,
and everything that is said of it comes from one description. What is drawn is counted in whole
numbers, or in sums and products whose rounding IEEE 754 fixes: all machines draw the same.
"""

from distnet.data.scenes.captions import (
    PADDING,
    VOCABULARY,
    WORDS,
    caption,
    caption_scenes,
    captioned,
    digits_of,
    sentence_of,
)
from distnet.data.scenes.digit_grids import DigitGrids
from distnet.data.scenes.digit_scenes import DigitScenes
from distnet.data.scenes.road_scenes import ROAD_CLASSES, RoadScenes
from distnet.data.scenes.samples import IGNORED, boxed, masked, unpadded
from distnet.data.scenes.scene import Part, Scene, Scenes

__all__ = [
    "IGNORED",
    "PADDING",
    "ROAD_CLASSES",
    "VOCABULARY",
    "WORDS",
    "DigitGrids",
    "DigitScenes",
    "Part",
    "RoadScenes",
    "Scene",
    "Scenes",
    "boxed",
    "caption",
    "caption_scenes",
    "captioned",
    "digits_of",
    "masked",
    "sentence_of",
    "unpadded",
]
