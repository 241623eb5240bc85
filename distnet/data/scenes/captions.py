"""What one says of a scene of one or two digits: "a large three above a small seven".

There is one right caption for a scene: of two digits the upper one comes first, or the left one if
they stand side by side, and scenes in which that is not clear are not drawn. Of a grid of digits
one reads them out, row by row: "three one four one five nine two six five".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distnet.base.arrays import Array
from distnet.data.dataset import Samples
from distnet.data.scenes.digit_scenes import DigitScenes
from distnet.data.scenes.scene import Part, Scene, Scenes

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("a", "small", "large", "above", "left", "of", "alone", *DIGITS)
VOCABULARY = (".", *WORDS)  # by number; the first ends a sentence
LONGEST = 9  # words of a caption, the stop included
PADDING = -1  # behind the end of a sentence
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


def digits_of(scene: Scene) -> str:
    """The digits of a scene in their order, in words."""
    return " ".join(DIGITS[label] for label in scene.labels.tolist())


def captioned(
    scenes: Scenes, count: int, length: int = LONGEST, say: Callable[[Scene], str] = caption
) -> Samples:
    """The first `count` scenes: images `(N, C, H, W)` bytes, and what is said of them.

    A sentence is `length` numbers int8 of words of `VOCABULARY`, the stop included, and `PADDING`.
    Raises ValueError for a longer one.
    """
    images = np.empty((count, *scenes[0].image.shape), np.uint8)
    sentences = np.full((count, length), PADDING, np.int8)
    for number in range(count):
        scene = scenes[number]
        images[number] = scene.image
        words = [VOCABULARY.index(word) for word in (*say(scene).split(), ".")]
        if len(words) > length:
            raise ValueError(
                f"captioned: found {say(scene)!r:.80}, expected at most {length} words "
                "with the stop"
            )
        sentences[number, : len(words)] = words
    return Samples(images, sentences)


def sentence_of(words: Array | Sequence[int]) -> str:
    """Numbers of words as a sentence, up to its stop or end."""
    said = []
    for word in np.asarray(words).tolist():
        if word in (0, PADDING):
            break
        said.append(VOCABULARY[word])
    return " ".join(said)
