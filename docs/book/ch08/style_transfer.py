"""Photographs in the style of other pictures (section 8.5.1).

Three pairs of scikit-image's pictures with several weights of the style, which is a curve: how near
the style comes against what is lost of the content. Then each pair with the weight at which a given
part of the content is lost, and one pair four times as large, in tiles. How near the results come
to their styles is judged by a network that took no part in it, and so is what untrained networks
make of the first pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from painting import EYES, TILE, beside, painted_by, write
from textures import TAPS, photograph, texture_network

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, main
from distnet.nn import Network
from distnet.objectives.likeness import Likeness, as_floats, style_of
from distnet.training.files.model_file import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What texture_networks.py has trained. Which of them is the judge is up to the seed.
JUDGE = Path(__file__).with_name("texture_judge.safetensors")
NETWORKS = [JUDGE, *EYES]
UNTRAINED = (7, 8)  # seeds
WEIGHTS = (0.5, 1.0, 2.0, 4.0)  # of the style
LOST = 0.49  # of the content, as the eyes see it: where on the curve the results lie


class Pair(NamedTuple):
    """A photograph, the picture whose style it gets, and how much of that picture is looked at."""

    content: str
    style: str
    part: float


PAIRS = (
    Pair("astronaut", "immunohistochemistry", 0.6),
    Pair("camera", "gravel", 0.5),
    Pair("coffee", "hubble_deep_field", 0.3),
)
# Quick, whoever of the three judges: falls of 37 to 56 for the first pair, 3 for the worst, for the
# first 2.3 to 10 times those of untrained networks; contents of 0.68. The cameraman's luminance is
# 0.26 to 0.78 after so few steps; the full run has 0.73 and more.
REQUIRED = [
    Required(
        "style",
        "how many times the first pair's style distance falls (quick: 64 x 64, 60 steps)",
        "fall",
        at_least(30),
        at_least(25),
    ),
    Required("style", "how many times those of all pairs fall", "falls", at_least(30), at_least(2)),
    Required(
        "style",
        "content distances, as parts of those of the styles' own pictures",
        "contents",
        at_most(0.5),
        at_most(0.75),
    ),
    Required("style", "correlation of the luminance", "luminances", at_least(0.7), at_least(0.2)),
    Required(
        "style",
        "how many times as far the first pair's falls as with untrained networks",
        "times_untrained",
        at_least(3),  # 1 if the eyes had not learned
        at_least(1.5),
    ),
]


class Measures(NamedTuple):
    """What has become of a content: see `measures`."""

    fall: float
    content: float
    luminance: float


def run(lab: Lab) -> Numbers:
    side, steps, weights = (64, 60, WEIGHTS[1:3]) if lab.quick else (128, 300, WEIGHTS)
    judge, *eyes = roles(lab.seed)
    contents = np.stack([photograph(pair.content, (side, side)) for pair in PAIRS])
    styles = [photograph(pair.style, (side, side), pair.part) for pair in PAIRS]
    curves = [
        seen_by(
            eyes,
            judge,
            contents,
            styles,
            painted_by(eyes, contents, styles, style_weight=weight, steps=steps, comm=lab.comm)[0],
        )
        for weight in weights
    ]
    chosen = [
        weight_for(LOST, weights, [seen[pair].content for seen in curves]) for pair in range(3)
    ]
    results, history = painted_by(
        eyes, contents, styles, style_weight=chosen, steps=steps, comm=lab.comm
    )
    found = seen_by(eyes, judge, contents, styles, results)
    untrained = [texture_network(seed) for seed in UNTRAINED]
    (of_untrained,), _ = painted_by(
        untrained, contents[:1], styles[:1], style_weight=4.0, steps=steps, comm=lab.comm
    )
    control = contents[0], styles[0], of_untrained
    if lab.comm.rank == 0:
        triples = list(zip(contents, styles, results, strict=True))
        write(lab.out / "style.jpg", beside(triples), enlarged=2)
        write(lab.out / "style_untrained.jpg", beside([control]), enlarged=2)
    lab.picture("style_curves", lambda figure: draw_curves(figure, weights, curves, found), (7, 4))
    untrained_fall = measures(judge, *control).fall
    numbers = {
        "weights": chosen,
        "fall": found[0].fall,
        "falls": [each.fall for each in found],
        "contents": [each.content for each in found],
        "luminances": [each.luminance for each in found],
        "untrained": untrained_fall,
        "times_untrained": found[0].fall / untrained_fall,
        "untrained_by_itself": measures(untrained[0], *control).fall,
        "by_judge": [
            measures(judge, *triple) for triple in zip(contents, styles, results, strict=True)
        ],
        "curves": curves,
        "params_sha256": history.params_sha256,
    }
    return numbers if lab.quick else numbers | large(lab, eyes, judge, steps)


def roles(seed: int) -> list[Network]:
    """The judge and the two eyes: with seeds 1 and 2 one of the eyes judges, and the judge sees."""
    first = seed % len(NETWORKS)
    return [load(path) for path in NETWORKS[first:] + NETWORKS[:first]]


def seen_by(
    eyes: list[Network], judge: Network, contents: Array, styles: list[Array], results: Array
) -> list[Measures]:
    """For each pair the fall as the judge sees it; the content as the eyes do, in the mean."""
    seen = []
    for triple in zip(contents, styles, results, strict=True):
        content = float(np.mean([measures(eye, *triple).content for eye in eyes]))
        seen.append(measures(judge, *triple)._replace(content=content))
    return seen


def weight_for(lost: float, weights: tuple[float, ...], contents: list[float]) -> float:
    """The weight at which so much of the content is lost, on a curve that rises with log(weight).

    The judge is not asked. Beyond the ends of the curve it is that of the end.
    """
    return float(np.exp(np.interp(lost, contents, np.log(weights))))


def draw_curves(
    figure: Figure, weights: tuple[float, ...], curves: list[list[Measures]], found: list[Measures]
) -> None:
    """What the style gains against what the content loses, a line for each pair."""
    axes = figure.subplots()
    for number, pair in enumerate(PAIRS):
        x, y = ([each[number][field] for each in curves] for field in (1, 0))
        (line,) = axes.plot(x, y, "o-", label=f"{pair.content}, {pair.style.replace('_', ' ')}")
        axes.plot(
            found[number].content, found[number].fall, "*", markersize=15, color=line.get_color()
        )
        for weight, at in zip(weights, zip(x, y, strict=True), strict=True):
            axes.annotate(f"{weight:g}", at, (4, -11), textcoords="offset points", fontsize=8)
    axes.axvline(0.5, color="grey", linestyle=":")
    axes.axhline(30, color="grey", linestyle=":")
    axes.set_yscale("log")
    axes.set(
        xlabel="content distance, as a part of that of the style's own picture",
        ylabel="how many times the style\ndistance falls, for the judge",
    )
    axes.legend()


def large(lab: Lab, eyes: list[Network], judge: Network, steps: int) -> Numbers:
    """The first pair with 256 x 256 pixels, in four tiles that the ranks share out."""
    pair = PAIRS[0]
    content, style = photograph(pair.content, (256, 256)), photograph(pair.style, (256, 256), 0.9)
    (result,), history = painted_by(
        eyes, content[None], [style], steps=steps, tile=TILE, comm=lab.comm
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
