"""Photographs in the style of other pictures (section 8.5.1).

Three pairs of scikit-image's pictures at once, then one of them four times as large, in tiles. How
near the results come to their styles is judged by a network that took no part in it, and so is what
an untrained network makes of the first pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from painting import TILE, beside, painted_by, write
from textures import TAPS, photograph, texture_network

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, main
from distnet.nn import Network
from distnet.objectives.style import Likeness, as_floats, style_of
from distnet.training.files.model_file import load

# What texture_networks.py has trained.
EYE = Path(__file__).with_name("texture_eye.safetensors")
JUDGE = Path(__file__).with_name("texture_judge.safetensors")
UNTRAINED = 7  # a seed


class Pair(NamedTuple):
    """A photograph, the picture whose style it gets, and how much of that picture is looked at."""

    content: str
    style: str
    part: float


PAIRS = (
    Pair("astronaut", "immunohistochemistry", 0.6),
    Pair("chelsea", "gravel", 0.5),
    Pair("coffee", "hubble_deep_field", 0.3),
)
REQUIRED = [
    Required(
        "style",
        "how many times the style distance falls for the judge (quick: 64 x 64, 100 steps)",
        "fall",
        at_least(30),
        at_least(18),
    ),
    Required(
        "style",
        "content distance, as a part of that of the style's own picture",
        "content",
        at_most(0.5),
        at_most(0.8),
    ),
    Required("style", "correlation of the luminance", "luminance", at_least(0.7)),
    Required(
        "style",
        "how many times it falls with an untrained network",
        "untrained",
        at_most(15),
        at_most(18),
    ),
]


class Measures(NamedTuple):
    """What has become of a content: see `measures`."""

    fall: float
    content: float
    luminance: float


def run(lab: Lab) -> Numbers:
    side, steps = (64, 100) if lab.quick else (128, 200)
    eye, judge = load(EYE), load(JUDGE)
    contents = np.stack([photograph(pair.content, (side, side)) for pair in PAIRS])
    styles = [photograph(pair.style, (side, side), pair.part) for pair in PAIRS]
    results, history = painted_by(eye, contents, styles, steps=steps, comm=lab.comm)
    triples = list(zip(contents, styles, results, strict=True))
    untrained = texture_network(UNTRAINED)
    (of_untrained,), _ = painted_by(untrained, contents[:1], styles[:1], steps=steps, comm=lab.comm)
    control = contents[0], styles[0], of_untrained
    if lab.comm.rank == 0:
        write(lab.out / "style.jpg", beside(triples), enlarged=2)
        write(lab.out / "style_untrained.jpg", beside([control]), enlarged=2)
    by_eye, by_judge = ([measures(each, *triple) for triple in triples] for each in (eye, judge))
    numbers = {
        "fall": by_judge[0].fall,
        "content": by_eye[0].content,
        "luminance": by_eye[0].luminance,
        "untrained": measures(judge, *control).fall,
        "untrained_by_itself": measures(untrained, *control).fall,
        "measures_by_eye": by_eye,
        "measures_by_judge": by_judge,
        "params_sha256": history.params_sha256,
    }
    return numbers if lab.quick else numbers | large(lab, eye, judge, steps)


def large(lab: Lab, eye: Network, judge: Network, steps: int) -> Numbers:
    """The first pair with 256 x 256 pixels, in four tiles that the ranks share out."""
    pair = PAIRS[0]
    content, style = photograph(pair.content, (256, 256)), photograph(pair.style, (256, 256), 0.9)
    (result,), history = painted_by(
        eye, content[None], [style], steps=steps, tile=TILE, comm=lab.comm
    )
    if lab.comm.rank == 0:
        write(lab.out / "style_large.jpg", beside([(content, style, result)]))
    return {
        "large": measures(judge, content, style, result),
        "large_sha256": history.params_sha256,
    }


def measures(network: Network, content: Array, style: Array, result: Array) -> Measures:
    """fall: of the style distance, from the content to the result, as the network sees them.
    content: the content distance, divided by that of the style's own picture. luminance: the
    correlation of the result's with the content's."""
    seen = Likeness(network, result.shape, **TAPS)
    content, style = as_floats(content), as_floats(style)
    wanted = seen.content(content), style_of(network, style, **TAPS)
    before, after, style_itself = (
        seen.distances(each, *wanted) for each in (content, result, style)
    )
    luminance = np.corrcoef(content.mean(axis=0).ravel(), result.mean(axis=0).ravel())[0, 1]
    return Measures(
        before.style / after.style, after.content / style_itself.content, float(luminance)
    )


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
