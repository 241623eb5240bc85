"""What one says of a scene of one or two digits: "a large three above a small seven".

There is one right caption for a scene: of two digits the upper one comes first, or the left one if
they stand side by side, and scenes in which that is not clear are not drawn.
"""

from __future__ import annotations

from distnet.data.dataset import Samples
from distnet.data.scenes.digit_scenes import DigitScenes
from distnet.data.scenes.scene import Part, Scene

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("a", "small", "large", "above", "left", "of", "alone", *DIGITS)
SMALL, LARGE = range(12, 16), range(20, 24)  # heights in pixels


def caption_scenes(digits: Samples, *, seed: int = 0, part: Part = Part.TRAIN) -> DigitScenes:
    """Scenes of 40 x 40 pixels with one or two digits, of which there is one caption."""
    heights = (*SMALL, *LARGE)
    return DigitScenes(
        digits,
        seed=seed,
        part=part,
        size=(40, 40),
        most=2,
        heights=heights,
        clutter=(0, 0),
        apart=True,
    )


def caption(scene: Scene) -> str:
    """The words of `WORDS` that describe a scene of one or two digits.

    Raises ValueError for a scene of more.
    """
    if not 1 <= len(scene.boxes) <= 2:
        raise ValueError(f"caption: found a scene of {len(scene.boxes)} digits, expected 1 or 2")
    things = [
        (box, f"a {'small' if box[3] - box[1] < LARGE.start else 'large'} {DIGITS[label]}")
        for box, label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)
    ]
    if len(things) == 1:
        return f"{things[0][1]} alone"
    (a, _), (b, _) = things
    across, down = (abs(a[i] + a[i + 2] - b[i] - b[i + 2]) for i in (0, 1))
    axis, relation = (1, "above") if down > across else (0, "left of")
    (_, first), (_, second) = sorted(things, key=lambda thing: thing[0][axis] + thing[0][axis + 2])
    return f"{first} {relation} {second}"
