"""Looks at the filters of the first layer before and after training (book section 7.6.1).

Random filters are noise; trained ones have smooth blobs and edges. The eye is helped by a number:
the correlation of neighbouring weights. Then a few of them are applied to a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from distnet.base.arrays import Array
from distnet.experiments import Lab, Numbers, Required, at_least, at_most, main
from distnet.models import SimpleConvNet
from distnet.nn import Conv2d, Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REQUIRED = [
    Required("A20", "correlation of neighbours in fresh filters", "fresh", at_most(0.1)),
    Required(
        "A20",
        "correlation of neighbours after 1 epoch (quick: of 12,000 digits)",
        "trained",
        at_least(0.3),
    ),
]
SIDE = 96  # pixels of the picture


def run(lab: Lab) -> Numbers:
    (images, labels), _ = lab.digits
    size = 12_000 if lab.quick else 60_000
    network = SimpleConvNet(seed=lab.seed)
    weight = network.parameters.named()["conv1.weight"]  # (30, 1, 5, 5), a view
    fresh = weight.copy()
    lab.fit(
        network,
        images[:size],
        labels[:size],
        epochs=1,
        optimizer="adam",
        lr=0.001,
        micro_batch_size=50,
    )
    lab.picture("filters", lambda figure: draw_filters(figure, fresh, weight), size=(8, 3.6))
    lab.picture("filtered", lambda figure: draw_filtered(figure, weight), size=(8, 2.9))
    return {"fresh": neighbour_correlation(fresh), "trained": neighbour_correlation(weight)}


def neighbour_correlation(weight: Array) -> float:
    """The correlation of each weight with the one below and beside it, mean over the filters.

    weight: (F, 1, KH, KW). 0 for noise, less the little that its own mean takes away.
    """
    pairs = [
        np.corrcoef(a.ravel(), b.ravel())[0, 1]
        for w in weight[:, 0].astype(np.float64)
        for a, b in ((w[1:], w[:-1]), (w[:, 1:], w[:, :-1]))
    ]
    return float(np.mean(pairs))


def edge_strength(weight: Array) -> tuple[Array, Array]:
    """How much each filter answers to edges, (F,) each: bright above dark, bright left of dark."""
    w = weight[:, 0]
    above = w[:, :2].sum((1, 2)) - w[:, 3:].sum((1, 2))
    left = w[:, :, :2].sum((1, 2)) - w[:, :, 3:].sum((1, 2))
    return above, left


def picture() -> Array:
    """A disc, a square and a triangle on a ground that brightens, (1, 1, 96, 96) in [0, 1]."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    image = 0.3 * x
    image[(x - 0.28) ** 2 + (y - 0.3) ** 2 < 0.04] = 1
    image[(abs(x - 0.74) < 0.17) & (abs(y - 0.28) < 0.17)] = 0.8
    image[(y > 0.58) & (y < 0.92) & (abs(x - 0.5) < (y - 0.58) * 0.9)] = 0.9
    return image[None, None].astype(np.float32)


def apply(weight: Array, image: Array) -> Array:
    """The image (1, 1, H, W) seen through each filter, (F, H - 4, W - 4)."""
    network = Network([Conv2d(len(weight), 5)], image.shape[1:])
    network.parameters.load(
        {"conv1.weight": weight, "conv1.bias": np.zeros(len(weight), np.float32)}
    )
    return network.predict(image)[0]


def draw_filters(figure: Figure, fresh: Array, trained: Array) -> None:
    """All 30 filters, each on a scale of its own: most weights stay small, but not shapeless."""
    parts: Any = figure.subfigures(1, 2)
    titles = ("before training", "after one epoch")
    for part, weight, title in zip(parts, (fresh, trained), titles, strict=True):
        part.suptitle(title)
        for axes, w in zip(part.subplots(5, 6).flat, weight[:, 0], strict=True):
            draw_signed(axes, w, abs(w).max())


def draw_filtered(figure: Figure, weight: Array) -> None:
    """The picture, and the answers of the four filters that look most for one kind of edge."""
    image = picture()
    above, left = edge_strength(weight)
    chosen = [above.argmax(), above.argmin(), left.argmax(), left.argmin()]
    answers = apply(weight[chosen], image)
    upper, lower = figure.subplots(2, 5, height_ratios=(1, 3))
    lower[0].imshow(image[0, 0], cmap="gray")
    lower[0].set_title("picture")
    titles = ("bright above", "bright below", "bright left", "bright right")
    for axes, index in zip(upper[1:], chosen, strict=True):
        draw_signed(axes, weight[index, 0], abs(weight[chosen]).max())
        axes.set_title(f"filter {index}")
    for axes, answer, title in zip(lower[1:], answers, titles, strict=True):
        draw_signed(axes, answer, abs(answers).max())
        axes.set_title(title)
    upper[0].axis("off")
    lower[0].axis("off")


def draw_signed(axes: Axes, values: Array, limit: float) -> None:
    """Orange is negative, white 0, purple positive."""
    axes.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit)
    axes.axis("off")


if __name__ == "__main__":
    main(__file__, run, REQUIRED)
